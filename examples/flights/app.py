"""The application: one instance for each aircraft, its totals kept in durable state.

    wherry run examples.flights.app:application --durable-state

The totals live in ``scope["durable"]``: they are written together with the answer when a flight
is finished, and loaded again wherever the aircraft's next instance starts. There is no database,
no lock and no duplicate to think of.
"""


async def application(scope, receive, send):
    """Answer each flight with its aircraft's totals so far."""
    totals = scope["durable"]
    while True:
        flight = await receive()
        if flight["arr_delay"] is None:  # it did not arrive where it should: cancelled, diverted
            totals["cancelled"] = totals.get("cancelled", 0) + 1
        else:
            totals["flights"] = totals.get("flights", 0) + 1
            totals["miles"] = totals.get("miles", 0) + flight["distance"]
            totals["delay_min"] = totals.get("delay_min", 0) + flight["arr_delay"]
        await send({"type": "totals", "row": flight["row"], **totals})
