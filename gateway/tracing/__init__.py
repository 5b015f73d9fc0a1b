"""Traces: the context that a task carries (`context`), whether spans are made and where they go (`environment`,
`setup`), and which spans there are (`spans`: where nobody asks for them, it and OpenTelemetry are never imported)."""
