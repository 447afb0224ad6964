"""The vision and text towers."""
