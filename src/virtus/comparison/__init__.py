"""The same guest under every technique and peer, measured alike."""
