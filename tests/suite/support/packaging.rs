//! What is packaged for monitoring fits the module: the exporter's script hands over every field of INFO, and the rules
//! and the dashboard name only fields that exist.

use std::collections::BTreeMap;
use std::path::PathBuf;

use harness::Server;

fn packaged(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging/monitoring")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs the exporter's script as the exporter does.
fn exported(server: &Server) -> BTreeMap<String, u64> {
    let pairs: Vec<String> = redis::cmd("EVAL")
        .arg(packaged("exporter.lua"))
        .arg(0)
        .query(server.session().connection())
        .expect("the script runs");
    pairs
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].parse().expect("a number")))
        .collect()
}

/// The fields that a text names as `key="mcache_..."`, with or without escaped quotes.
fn named(text: &str) -> Vec<String> {
    text.replace('\\', "")
        .split("key=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_exporter_script_hands_over_every_field_of_info() {
    let server = Server::start();
    let exported = exported(&server);
    let info: String = redis::cmd("INFO")
        .arg("mcache")
        .query(server.session().connection())
        .expect("INFO");
    let fields: Vec<&str> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(field, _)| field)
        .collect();
    assert!(fields.len() > 20, "{info}");
    for field in fields {
        assert!(exported.contains_key(field), "{field} is not exported");
    }
}

#[test]
fn rules_and_dashboard_name_only_fields_that_exist() {
    let server = Server::start();
    let exported = exported(&server);
    for file in ["alerts.yml", "dashboard.json"] {
        let named = named(&packaged(file));
        assert!(named.len() > 3, "{file} names no fields");
        for field in named {
            assert!(
                exported.contains_key(&field),
                "{file} names {field}, which INFO does not have"
            );
        }
    }
}

#[test]
fn the_dashboard_is_complete_json_and_its_panels_do_not_overlap() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&packaged("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut places = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            !panel["description"].as_str().unwrap_or("").is_empty(),
            "{title}"
        );
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title} shows nothing");
        let at = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
        places.push((title, at("x"), at("y"), at("w"), at("h")));
    }
    for (i, &(title, x, y, w, h)) in places.iter().enumerate() {
        assert!(x + w <= 24, "{title} is wider than the page");
        for &(other, x2, y2, w2, h2) in &places[i + 1..] {
            let apart = x + w <= x2 || x2 + w2 <= x || y + h <= y2 || y2 + h2 <= y;
            assert!(apart, "{title} overlaps {other}");
        }
    }
}
