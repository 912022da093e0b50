"""Networks and figures as files, and data to try things on."""
