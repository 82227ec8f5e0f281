"""The doctor: looks at a server and a namespace, and says what is wrong and what to do."""
