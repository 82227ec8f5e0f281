"""Small applications that run on Wherry; each has a test."""
