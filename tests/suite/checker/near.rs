//! The same histories with a near cache in each process: what is served from the process itself is never outdated
//! either.

use super::*;

/// Options of a server with the feed on. Leases are short: many of them end in a history.
fn options() -> ServerBuilder {
    Server::builder().feed(300).set("mcache.on-promote", "drop")
}

#[test]
fn of_one_server_that_is_killed_cut_off_and_stopped_serve_nothing_outdated() {
    let server = options().set("mcache.reclaim-inline-max", 0).tcp().start();
    one_server(server, Kind::Near);
}

#[test]
fn in_a_failover_under_load_serve_nothing_outdated() {
    failovers(options(), Kind::Near);
}

#[test]
fn of_slots_that_move_whole_all_the_time_serve_nothing_outdated() {
    slots_that_move(options().set("mcache.reclaim-inline-max", 0), Kind::Near);
}
