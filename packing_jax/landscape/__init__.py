"""The energy landscape: minima, contacts and jamming of packings; curvature and flatness of any function."""
