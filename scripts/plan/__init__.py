"""``todo plan``: from what one core was measured to do to what a load needs."""
