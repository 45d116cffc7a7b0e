"""Tools: functions that a language model may ask to have called."""
