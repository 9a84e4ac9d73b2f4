"""Networks: tasks, data, models, and rules that move weights."""
