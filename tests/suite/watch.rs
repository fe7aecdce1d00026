//! `mcache-watch` as its users run it: a process with a file, between a real PostgreSQL and a real Redis.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use harness::{KillOnDrop, Postgres, ScratchDir, Server, Session, locate, wait};
use rustix::process::Signal;

const TABLES: &str = "
    CREATE TABLE product (id text PRIMARY KEY, title text, collection_id text, deleted_at timestamptz, updated_at timestamptz);
    CREATE TABLE tag (id text PRIMARY KEY, value text);
    CREATE TABLE product_tags (product_id text, tag_id text, PRIMARY KEY (product_id, tag_id));
    INSERT INTO product SELECT 'p' || n, 'title', 'c' || n FROM generate_series(1, 3) AS n;
    INSERT INTO tag VALUES ('t1', 'red');";

const FILE: &str = r#"
    [tags]
    new = ["{type}:new"]
    whole = ["{type}:list:*", "{type}:cascade"]
    [[table]]
    table = "product"
    type = "Product"
    links = { collection_id = "Collection" }
    deleted = "deleted_at"
    ignore = ["updated_at"]
    [[table]]
    table = "tag"
    type = "Tag"
    [[table]]
    table = "product_tags"
    id = ["product_id", "tag_id"]
    links = { product_id = "Product", tag_id = "Tag" }
"#;

/// A database, a cache, and a file that names them.
struct Shop {
    postgres: Postgres,
    redis: Server,
    dir: ScratchDir,
}

impl Shop {
    fn open() -> Self {
        Self::open_with(Server::start(), FILE)
    }

    fn open_with(redis: Server, file: &str) -> Self {
        let shop = Self {
            postgres: Postgres::start(),
            redis,
            dir: ScratchDir::new("watch"),
        };
        shop.postgres.psql(TABLES);
        fs::write(shop.file(), file).expect("the file is written");
        shop
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("shop.toml")
    }

    fn program(&self, options: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_mcache-watch"));
        program
            .args(options)
            .arg(self.file())
            .env("DATABASE_URL", self.postgres.conninfo())
            .env("CACHE_REDIS_URL", self.redis.url());
        program
    }

    fn output(&self, options: &[&str]) -> Output {
        self.program(options)
            .output()
            .expect("the program is there")
    }

    /// Starts it without waiting for anything.
    fn launch(&self) -> Watcher {
        let log = self.dir.path().join("log");
        let written = fs::File::create(&log).expect("a log");
        let child = self
            .program(&[])
            .stderr(written)
            .stdout(Stdio::null())
            .spawn();
        Watcher {
            child: KillOnDrop(child.expect("the program is there")),
            log,
        }
    }

    /// Starts it, and waits until nothing is left to be cleared.
    fn watch(&self) -> Watcher {
        let watcher = self.launch();
        watcher.says("watching 3 tables");
        wait::until("what may be left of earlier times is cleared", || {
            self.postgres
                .psql("SELECT count(*) FROM mcache.position WHERE clear")
                == "0"
        });
        self.settle();
        watcher
    }

    /// Waits until every committed change is invalidated.
    fn settle(&self) {
        wait::until("every change is invalidated", || {
            self.postgres.psql("SELECT count(*) FROM mcache.outbox") == "0"
        });
    }

    fn session(&self) -> Session {
        self.redis.session()
    }

    /// An entry with these tags, as a client stores it.
    fn store(&self, key: &str, tags: &str) {
        self.session()
            .ok(&format!("MCACHE.SET mc:{key} 0 value TAGS mc:* {tags}"));
    }

    fn is_live(&self, key: &str) -> bool {
        self.session().is_live(&format!("mc:{key}"))
    }

    #[track_caller]
    fn cleared(&self, key: &str) {
        wait::until(&format!("{key} is cleared"), || !self.is_live(key));
    }
}

/// The program while it runs.
struct Watcher {
    child: KillOnDrop,
    log: PathBuf,
}

impl Watcher {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    fn says(&self, words: &str) {
        wait::until(&format!("the log says {words:?}"), || {
            self.log().contains(words)
        });
    }

    fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// Ends it as an operator does.
    fn stop(mut self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        let child: &mut Child = &mut self.child;
        let status = child.wait().expect("it ends");
        (status, self.log())
    }
}

#[test]
fn a_change_by_psql_clears_what_was_made_from_it_and_nothing_else() {
    let shop = Shop::open();
    let watcher = shop.watch();
    shop.store("page1", "mc:Product:p1 mc:Product:cascade");
    shop.store("page2", "mc:Product:p2 mc:Product:cascade");
    shop.store("list", "mc:Product:list:*");
    shop.store("coming", "mc:Product:new");
    shop.store("collection", "mc:Collection:c1");
    shop.session()
        .ok("MCACHE.SET mc:manual 0 value MANUAL TAGS mc:Product:p1");
    shop.session()
        .ok("MCACHE.SET other:page 0 value TAGS other:Product:p1");

    shop.postgres
        .psql("UPDATE product SET updated_at = now() WHERE id = 'p1'");
    shop.postgres
        .psql("UPDATE product SET title = 'new' WHERE id = 'p1'");
    for key in ["page1", "list", "collection"] {
        shop.cleared(key);
    }
    assert!(shop.is_live("page2") && shop.is_live("coming") && shop.is_live("manual"));
    assert!(shop.session().is_live("other:page"), "another prefix");

    shop.postgres
        .psql("INSERT INTO product VALUES ('p9', 'new')");
    shop.cleared("coming");
    assert!(shop.is_live("page2"));

    shop.store("tag", "mc:Tag:t1");
    shop.store("list", "mc:Product:list:*");
    shop.postgres
        .psql("INSERT INTO product_tags VALUES ('p2', 't1')");
    for key in ["page2", "tag", "list"] {
        shop.cleared(key);
    }

    shop.store("page2", "mc:Product:p2 mc:Product:cascade");
    shop.postgres.psql("TRUNCATE product");
    shop.cleared("page2");
    let (status, log) = watcher.stop(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM: stopped after"), "{log}");
}

#[test]
fn rows_named_by_several_columns_clear_by_all_of_them() {
    let file = r#"
        [[table]]
        table = "order"
        type = "Order"
        id = ["tenant", "number"]
        [[table]]
        table = "order_line"
        type = "Line"
        id = ["tenant", "number", "line"]
        links = [{ id = ["tenant", "number"], type = "Order" }, { id = "product_id", type = "Product" }]
        [[table]]
        table = "product"
        type = "Product"
    "#;
    let shop = Shop::open_with(Server::start(), file);
    shop.postgres.psql(
        r#"CREATE TABLE "order" (number bigint, tenant text, state text, PRIMARY KEY (tenant, number));
           CREATE TABLE order_line (line int, number bigint, tenant text, product_id text, amount int,
                                    PRIMARY KEY (tenant, number, line));
           INSERT INTO "order" VALUES (7, 'a', 'new'), (8, 'a', 'new'), (7, 'b', 'new'), (7, 'a|7', 'new');
           INSERT INTO order_line VALUES (1, 7, 'a', 'p1', 1), (2, 7, 'a', NULL, 1), (1, 7, 'b', 'p1', 1)"#,
    );
    let _watcher = shop.watch();
    // Everything an entry could be made from, each stored anew before each change.
    let all = [
        "Order:a|7",
        "Order:a|8",
        "Order:b|7",
        r"Order:a\|7|7",
        "Line:a|7|1",
        "Line:a|7|2",
        "Line:b|7|1",
        "Line:a|8|2",
        "Product:p1",
        "Product:p2",
        "Order:list:*",
        "Line:list:*",
        "Product:list:*",
    ];
    let lines = ["Line:list:*", "Order:list:*"];
    let products = ["Line:list:*", "Order:list:*", "Product:list:*"];
    for (change, named, lists) in [
        (
            r#"UPDATE "order" SET state = 'paid' WHERE tenant = 'a' AND number = 7"#,
            &["Order:a|7"][..],
            &["Order:list:*"][..],
        ),
        (
            r#"UPDATE "order" SET state = 'paid' WHERE tenant = 'a|7'"#,
            &[r"Order:a\|7|7"],
            &["Order:list:*"],
        ),
        (
            "UPDATE order_line SET amount = 2 WHERE tenant = 'a' AND line = 1",
            &["Line:a|7|1", "Order:a|7", "Product:p1"],
            &products,
        ),
        // It leads to no product.
        (
            "UPDATE order_line SET amount = 2 WHERE tenant = 'a' AND line = 2",
            &["Line:a|7|2", "Order:a|7"],
            &lines,
        ),
        // A part of the key changes: what it was and what it is.
        (
            "UPDATE order_line SET number = 8 WHERE tenant = 'a' AND line = 2",
            &["Line:a|7|2", "Line:a|8|2", "Order:a|7", "Order:a|8"],
            &lines,
        ),
        (
            "UPDATE order_line SET product_id = 'p2' WHERE tenant = 'b'",
            &["Line:b|7|1", "Order:b|7", "Product:p1", "Product:p2"],
            &products,
        ),
        (
            "DELETE FROM order_line WHERE tenant = 'b'",
            &["Line:b|7|1", "Order:b|7", "Product:p2"],
            &products,
        ),
    ] {
        for tag in all {
            shop.store(tag, &format!("mc:{tag}"));
        }
        shop.postgres.psql(change);
        shop.settle();
        let gone: BTreeSet<&str> = all.into_iter().filter(|tag| !shop.is_live(tag)).collect();
        let expected: BTreeSet<&str> = named.iter().chain(lists).copied().collect();
        assert_eq!(gone, expected, "{change}");
    }
    let said = shop.output(&["--check"]);
    let out = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        out.contains(
            "order_line: Line:<tenant|number|line> Line:list:* Order:<tenant|number> Order:list:*"
        ),
        "{out}"
    );
}

#[test]
fn what_changed_while_it_was_away_is_cleared_when_it_comes_back() {
    let shop = Shop::open();
    let watcher = shop.watch();
    let (status, log) = watcher.stop(Signal::INT);
    assert_eq!(status.code(), Some(0), "{log}");
    shop.store("page1", "mc:Product:p1");
    shop.store("page2", "mc:Product:p2");
    shop.postgres
        .psql("UPDATE product SET title = 'new' WHERE id = 'p1'");

    let mut killed = shop.watch();
    shop.cleared("page1");
    assert!(shop.is_live("page2"), "it knows what changed");
    killed.signal(Signal::KILL);
    let status = killed.child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(9));
    shop.postgres
        .psql("UPDATE product SET title = 'new' WHERE id = 'p2'");
    let _again = shop.watch();
    shop.cleared("page2");
}

#[test]
fn servers_that_are_away_are_waited_for() {
    let mut shop = Shop::open();
    shop.postgres.stop();
    let watcher = shop.launch();
    watcher.says("trying again");
    shop.postgres.start_again();
    watcher.says("watching 3 tables");
    shop.settle();

    shop.store("page1", "mc:Product:p1");
    shop.redis.pause();
    shop.postgres
        .psql("UPDATE product SET title = 'new' WHERE id = 'p1'");
    watcher.says("WARN");
    shop.redis.resume();
    shop.cleared("page1");

    shop.store("page2", "mc:Product:p2");
    shop.postgres.restart();
    shop.postgres
        .psql("UPDATE product SET title = 'new' WHERE id = 'p2'");
    shop.cleared("page2");
}

#[test]
fn a_column_that_is_added_counts_from_then_on() {
    let shop = Shop::open();
    let watcher = shop.watch();
    shop.store("page1", "mc:Product:p1 mc:Product:cascade");
    shop.postgres.psql(
        "ALTER TABLE product ADD COLUMN subtitle text; UPDATE product SET subtitle = 'early'",
    );
    shop.cleared("page1");
    watcher.says("other columns");
    wait::until("it watches again", || {
        watcher.log().matches("watching 3 tables").count() == 2
    });
    shop.store("page2", "mc:Product:p2");
    shop.postgres
        .psql("UPDATE product SET subtitle = 'new' WHERE id = 'p2'");
    shop.cleared("page2");
}

#[test]
fn check_says_what_would_be_watched_and_what_does_not_fit() {
    let shop = Shop::open();
    let said = shop.output(&["--check"]);
    let out = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(
        out.contains("product: Collection:<collection_id> Collection:list:* Collection:new Product:<id> Product:list:* Product:new"),
        "{out}"
    );
    assert!(
        out.contains("product_tags: ") && out.contains("nothing is installed"),
        "{out}"
    );
    assert_eq!(
        shop.postgres
            .psql("SELECT to_regnamespace('mcache') IS NULL"),
        "t",
        "it changes nothing"
    );

    let installed = shop.output(&["--install"]);
    assert_eq!(installed.status.code(), Some(0), "{installed:?}");
    shop.postgres.psql("UPDATE product SET title = 'new'");
    let said = shop.output(&["--check"]);
    assert!(
        String::from_utf8_lossy(&said.stdout).contains("1 changes wait"),
        "{said:?}"
    );

    for (file, code, words) in [
        (
            "[[table]]\ntable = 'prodct'\ntype = 'Product'",
            1,
            "prodct: there is no such table",
        ),
        (
            "[[table]]\ntable = 'product'\ntype = 'Product'\nid = 'key'",
            1,
            "no column key; it has collection_id",
        ),
        (
            "[[table]]\ntable = 'product'",
            2,
            "neither a type nor links",
        ),
        ("[[table]]\ntabel = 'product'", 2, "unknown field `tabel`"),
        (
            "cache.url = 'http://x'\n[[table]]\ntable = 'product'\ntype = 'Product'",
            1,
            "the cache: ",
        ),
        (
            "database.url = 'nonsense'\n[[table]]\ntable = 'product'\ntype = 'Product'",
            1,
            "database.url: ",
        ),
    ] {
        fs::write(shop.file(), file).expect("the file is written");
        let refused = shop.output(&["--check"]);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(code), "{file}: {error}");
        assert!(error.contains(words), "{file}: {error}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_mcache-watch"))
        .arg("nowhere.toml")
        .output()
        .expect("it runs");
    assert_eq!(missing.status.code(), Some(2));
    let usage = Command::new(env!("CARGO_BIN_EXE_mcache-watch"))
        .output()
        .expect("it runs");
    assert!(
        usage.status.code() == Some(2) && String::from_utf8_lossy(&usage.stderr).contains("usage:")
    );
}

#[test]
fn a_watcher_that_may_not_install_says_who_has_to_and_says_it_once() {
    let file = format!("[database]\ninstall = false\n{FILE}");
    let shop = Shop::open_with(Server::start(), &file);
    shop.postgres.psql("CREATE ROLE app LOGIN");
    let as_app = |options: &[&str]| {
        let mut program = shop.program(options);
        let conninfo = shop.postgres.conninfo();
        let conninfo = conninfo
            .split(' ')
            .map(|part| match part.starts_with("user=") {
                true => "user=app",
                false => part,
            });
        program.env("DATABASE_URL", conninfo.collect::<Vec<_>>().join(" "));
        program
    };
    let check = || as_app(&["--check"]).output().expect("it runs");

    let said = String::from_utf8_lossy(&check().stdout).into_owned();
    assert!(
        said.contains("nothing is installed") && said.contains("run mcache-watch --install"),
        "{said}"
    );

    let log = shop.dir.path().join("log");
    let mut program = as_app(&[]);
    program.stderr(fs::File::create(&log).expect("a log"));
    let child = program.spawn().expect("the program is there");
    let watcher = Watcher {
        child: KillOnDrop(child),
        log,
    };
    for _ in 0..2 {
        shop.store("page1", "mc:Product:p1");
        shop.cleared("page1");
    }
    for words in ["cannot read from", "not registered", "again and again"] {
        let lines = watcher
            .log()
            .lines()
            .filter(|line| line.contains(words))
            .count();
        assert!((1..=2).contains(&lines), "{words}: {}", watcher.log());
    }
    drop(watcher);

    let installed = shop.output(&["--install"]);
    assert_eq!(installed.status.code(), Some(0), "{installed:?}");
    let refused = check();
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(error.contains("permission denied"), "{error}");
}

#[test]
fn a_cache_without_the_module_ends_the_start() {
    let shop = Shop::open_with(Server::builder().without_module().start(), FILE);
    for options in [&["--check"][..], &[]] {
        let refused = shop.output(options);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{error}");
        assert!(error.contains("the cache: "), "{error}");
    }
}

/// The columns that a file's lines about one table name.
fn columns_named(lines: &str) -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    for line in lines.lines() {
        let Some((key, value)) = line.split_once(" = ") else {
            continue;
        };
        let names: Vec<&str> = match key {
            "id" | "deleted" => value.split(['[', ']', ',']).collect(),
            "links" => value
                .split(['{', '}', ','])
                .filter_map(|pair| pair.split(" = ").next())
                .collect(),
            _ => continue,
        };
        let names = names.into_iter().map(|name| name.trim().trim_matches('"'));
        columns.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
    }
    columns
}

#[test]
fn the_file_for_medusa_fits_a_database_with_its_tables() {
    let path = locate::workspace().join("packaging/watch/medusa.toml");
    let file = fs::read_to_string(path).expect("it is shipped");
    let shop = Shop::open_with(Server::start(), &file);
    shop.postgres.psql("DROP TABLE product, tag, product_tags");
    let tables: Vec<&str> = file.split("[[table]]").skip(1).collect();
    assert!(tables.len() > 60, "{}", tables.len());
    for lines in &tables {
        let name = lines.split('"').nth(1).expect("table = \"...\"");
        let mut columns = columns_named(lines);
        if !lines.contains("\nid = ") {
            columns.insert("id".to_owned());
        }
        let columns: Vec<String> = columns
            .iter()
            .map(|column| format!("{column} text"))
            .collect();
        shop.postgres
            .psql(&format!("CREATE TABLE {name} ({})", columns.join(", ")));
    }
    let said = shop.output(&["--check"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let lines = String::from_utf8_lossy(&said.stdout).lines().count();
    assert_eq!(lines, tables.len() + 2);
}
