//! Answers what the other side asks on its streams.
