"""One module per place that profiles go to. ``contract`` says what a sink is."""
