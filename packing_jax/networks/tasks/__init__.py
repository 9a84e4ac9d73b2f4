"""Published systems that run by their names, one a file: functions of numbers that make a task."""
