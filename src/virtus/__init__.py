"""virtus runs any guest under any virtualization technique, and shows what it costs."""
