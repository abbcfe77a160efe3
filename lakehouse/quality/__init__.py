"""Quality: expectations from contracts and analysts' files, asked of what was committed and of whole tables."""
