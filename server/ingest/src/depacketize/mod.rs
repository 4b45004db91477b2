//! From packets in order to access units on the sender's clock. No session time, no waiting: loss is told from outside.

pub mod aac;
pub mod h264;
pub mod opus;
