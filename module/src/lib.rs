//! mcache, the Redis module: the edge between Redis and `mcache-core`.
//!
//! - `callbacks/`: what Redis calls, loading the module included (the roof)
//! - `commands/`: one file a command: parse, ask core, apply, reply
//! - `rounds.rs`, `parking.rs`, `near.rs`, `reclaim.rs`, `bell.rs`, `listeners.rs`, `info.rs`, `config.rs`: what goes
//!   on beside commands
//! - `state.rs`: the one global
//! - `redis/`: what the module calls (the floor)
//!
//! Each knows those below it only. All of the `unsafe` is in the roof and the floor.
#![deny(unsafe_code)]

mod bell;
#[allow(unsafe_code)]
mod callbacks;
mod commands;
mod config;
mod info;
mod listeners;
mod near;
mod parking;
mod reclaim;
#[allow(unsafe_code)]
mod redis;
mod rounds;
mod state;

/// Redis's own allocator, so that index and entries count in `used_memory` and under `maxmemory`.
#[global_allocator]
static ALLOCATOR: redis_module::alloc::RedisAlloc = redis_module::alloc::RedisAlloc;
