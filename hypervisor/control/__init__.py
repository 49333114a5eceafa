"""Control: create, destroy, pause, limits. What Domain 0, Python and the command line all call."""
