//! JSON, as far as QMP and our own reports need it.
