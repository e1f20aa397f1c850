"""Programs that users would write in our place, to measure beside."""
