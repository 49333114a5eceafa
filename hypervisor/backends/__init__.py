"""The other half of split drivers: console, xenstore."""
