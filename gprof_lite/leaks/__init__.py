"""The leak engine, pure: growth series to suspects, outstanding stacks to verdicts, forecasts, the governor."""
