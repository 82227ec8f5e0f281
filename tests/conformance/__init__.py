"""What Wherry does on every store that it runs on."""
