//! Rows over a connection: listings that are sent ahead, digests, decisions.
