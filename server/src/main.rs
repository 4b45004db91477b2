//! The `fishladder` program.
#![allow(dead_code, unused_variables)]

mod channel;
mod config;
mod supervisor;

fn main() {}
