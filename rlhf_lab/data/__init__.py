"""Posts, summaries and preferences as text, and the one place that makes tensors of them."""
