"""The demo's data: real purchases, laid out as an upstream system would deliver them."""
