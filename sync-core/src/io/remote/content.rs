//! Content over a connection: a source on another machine, and the answers to its requests.
