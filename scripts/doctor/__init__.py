"""What ``todo doctor`` looks at: one module a server, each check a function that yields what it found."""
