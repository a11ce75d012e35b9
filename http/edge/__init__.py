"""The merchant's door: HTTP in, one engine verb, HTTP out."""
