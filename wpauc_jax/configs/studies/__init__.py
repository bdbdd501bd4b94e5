"""Studies: arms of one configuration, and what they are compared with."""
