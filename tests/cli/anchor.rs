//! The anchor of the access logs: what a server refuses to start on, and what of it an operator can accept.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use crate::installation::Installation;

const SERVE: &str = "serve --config strongroom.toml";
const ANCHOR: &str = "anchor/strongroom";

/// A server that was anchored for the first time, and runs.
fn anchored() -> Installation {
    let mut site = Installation::new();
    fs::create_dir(site.path("anchor")).unwrap();
    site.configure("keyring = 'keys/dev/root.key'", "[audit]\nanchor = 'anchor/strongroom'");
    let refused = refused(&site.strongroomd(SERVE));
    assert!(refused.contains("is not there") && refused.contains("start once with"), "{refused}");
    let [option] = options(&refused, "--new-anchor").try_into().unwrap();
    site.serve_with(&["--new-anchor", &option]);
    site
}

/// The error of a start that was refused.
fn refused(run: &Output) -> String {
    let text = String::from_utf8(run.stderr.clone()).unwrap();
    assert_eq!(run.status.code(), Some(5), "{text}");
    assert!(text.contains("AUDIT_ROLLBACK: "), "{text}");
    text
}

/// What an error says can be accepted.
fn options(text: &str, name: &str) -> Vec<String> {
    let found = text.lines().filter_map(|line| line.trim().strip_prefix(name));
    found.map(|rest| rest.trim().to_owned()).collect()
}

fn accepting(logs: &[String]) -> Vec<&str> {
    logs.iter().flat_map(|log| ["--accept-rollback", log]).collect()
}

/// The anchored checkpoints, each with its origin.
fn checkpoints(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let (_, body) = text.split_once("\n\nstrongroom/log/").unwrap();
    let logs = format!("strongroom/log/{body}");
    let notes = logs.split("\n\nstrongroom/log/").map(|log| match log.starts_with("strongroom/log/") {
        true => log.to_owned(),
        false => format!("strongroom/log/{log}"),
    });
    let note = |log: String| log.split_once("frontier").unwrap().0.to_owned();
    notes.map(note).map(|note| (note.lines().next().unwrap().to_owned(), note)).collect()
}

/// What is on record of the tenant, or of the server.
fn events(site: &Installation, whose: &str) -> Vec<serde_json::Value> {
    let found = site.strongroom(&format!("audit search{whose} --output json")).ok().json_lines();
    found.into_iter().map(|mut line| line["event"].take()).collect()
}

/// A store that has less on record than its anchor, and the anchor.
fn put_back() -> (Installation, String) {
    let mut site = anchored();
    site.strongroom("session list").ok();
    site.stop();
    let copy = site.back_up("copy");
    site.serve();
    for _ in 0..3 {
        site.strongroom("session list").ok();
    }
    site.stop();
    site.put_back(&copy);
    let anchor = fs::read_to_string(site.path(ANCHOR)).unwrap();
    (site, anchor)
}

#[test]
fn a_store_that_was_put_back_is_refused_until_exactly_that_is_accepted_and_that_is_on_record() {
    let (mut site, anchor) = put_back();
    let text = refused(&site.strongroomd(SERVE));
    let accepted = options(&text, "--accept-rollback");
    assert_eq!(accepted.len(), 2, "the tenant's log and the server's own: {text}");
    for (origin, note) in checkpoints(&site.path(ANCHOR)) {
        let size = note.lines().nth(1).unwrap();
        assert!(text.contains(&format!("{origin}: anchored with {size} events")), "{text}");
    }
    let one = refused(&site.strongroomd(&format!("{SERVE} --accept-rollback {}", accepted[0])));
    assert_eq!(options(&one, "--accept-rollback"), accepted[1..]);
    let other = accepted[0].replace(":", ":1");
    let both = format!("{SERVE} --accept-rollback {other} --accept-rollback {}", accepted[1]);
    assert_eq!(options(&refused(&site.strongroomd(&both)), "--accept-rollback"), accepted[..1]);
    assert_eq!(fs::read_to_string(site.path(ANCHOR)).unwrap(), anchor, "a refusal changes nothing");

    site.serve_with(&accepting(&accepted));
    let lines = events(&site, "");
    let found =
        |typ: &str| lines.iter().find(|line| line["typ"] == typ).unwrap_or_else(|| panic!("{lines:?}"));
    let (epoch, rollback) = (found("sys.epoch"), found("sys.rollback"));
    let pair = [epoch, rollback].map(|line| (line["seq"].as_u64().unwrap(), line["typ"].as_str().unwrap()));
    assert_eq!(pair, [(0, "sys.epoch"), (1, "sys.rollback")]);
    let was = accepted.iter().find(|log| !log.contains(&"0".repeat(32))).unwrap();
    let (origin, size) = was.rsplit_once(':').unwrap();
    assert_eq!(epoch["res"]["ver"].to_string(), size);
    let anchored = anchor.split_once(&format!("\n{origin}\n")).unwrap().1.lines().next().unwrap();
    assert_eq!(rollback["res"]["ver"].to_string(), anchored);
    site.stop();

    site.serve();
    site.stop();
    let again = site.strongroomd(&format!("{SERVE} --accept-rollback {}", accepted[0]));
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("take it away"));
    site.put_back(&site.path("copy"));
    refused(&site.strongroomd(SERVE));
}

#[test]
fn a_store_that_was_put_back_and_went_on_without_its_anchor_has_another_history() {
    let (mut site, _) = put_back();
    site.configure("keyring = 'keys/dev/root.key'", "");
    site.serve();
    for _ in 0..9 {
        site.strongroom("key list").ok();
    }
    site.stop();
    site.configure("keyring = 'keys/dev/root.key'", "[audit]\nanchor = 'anchor/strongroom'");
    let text = refused(&site.strongroomd(SERVE));
    assert!(text.contains("has another history"), "{text}");
    site.serve_with(&accepting(&options(&text, "--accept-rollback")));
}

#[test]
fn an_anchor_that_is_gone_cut_off_garbage_or_of_another_store_is_refused_with_what_to_do() {
    let mut site = anchored();
    site.stop();
    let mut other = anchored();
    other.stop();
    let path = site.path(ANCHOR);
    let anchor = fs::read(&path).unwrap();
    let foreign = fs::read(other.path(ANCHOR)).unwrap();
    let cut = anchor[..anchor.len() - 1].to_vec();
    let fewer = {
        let text = String::from_utf8(anchor.clone()).unwrap();
        let at = text.rfind("\n\nstrongroom/log/").unwrap();
        text.as_bytes()[..at + 2].to_vec()
    };
    for (wrong, word) in [
        (cut, "cut off"),
        (fewer, "cut off"),
        (Vec::new(), "no signed note"),
        (vec![0xff; 4096], "no signed note"),
        (foreign, "not signed by the key"),
    ] {
        fs::write(&path, wrong).unwrap();
        let text = refused(&site.strongroomd(SERVE));
        assert!(text.contains(word) && text.contains("Bring back the right one"), "{word}: {text}");
    }
    fs::remove_file(&path).unwrap();
    let text = refused(&site.strongroomd(SERVE));
    let [now] = options(&text, "--new-anchor").try_into().unwrap();
    let old = format!("{}1", now);
    refused(&site.strongroomd(&format!("{SERVE} --new-anchor {old}")));
    assert!(!path.exists(), "a refusal makes no anchor");
    fs::write(&path, &anchor).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let needless = site.strongroomd(&format!("{SERVE} --new-anchor {now}"));
    assert_eq!(needless.status.code(), Some(1));
    site.serve();
    site.stop();
    fs::remove_file(&path).unwrap();
    let text = refused(&site.strongroomd(SERVE));
    site.serve_with(&["--new-anchor", &options(&text, "--new-anchor")[0]]);
    let found = events(&site, " --system");
    assert_eq!(found.iter().filter(|line| line["typ"] == "sys.anchor").count(), 2);
}

#[test]
fn what_was_on_record_before_kill_9_is_there_and_goes_on_from_an_older_anchor() {
    let mut site = anchored();
    let older = fs::read(site.path(ANCHOR)).unwrap();
    for _ in 0..5 {
        site.strongroom("session list").ok();
    }
    site.kill();
    fs::write(site.path(ANCHOR), older).unwrap();
    site.serve();
    let lines = events(&site, "");
    assert!(lines.iter().filter(|line| line["typ"] == "ses.list").count() >= 5, "{lines:?}");
}

#[test]
fn an_anchored_checkpoint_is_one_that_an_auditor_can_use_and_a_stop_leaves_the_last() {
    let mut site = anchored();
    fs::write(site.path("log.key"), site.strongroom("audit key").ok().out).unwrap();
    let key = fs::read_to_string(site.path("log.key")).unwrap();
    let origin = key.split_once('+').unwrap().0.to_owned();
    site.strongroom("session list").ok();
    site.stop();
    let found = checkpoints(&site.path(ANCHOR));
    assert!(found.len() >= 2, "{found:?}");
    let (_, note) = found.iter().find(|(of, _)| *of == origin).unwrap();
    fs::write(site.path("anchored"), note).unwrap();
    site.serve();
    site.strongroom("audit export log --key log.key").ok();
    site.strongroom("audit verify log --key log.key --since anchored").ok();
    let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
    let lines = events(&site, "");
    let last =
        lines.iter().filter(|line| line["typ"] == "ses.list").map(|line| line["seq"].as_u64().unwrap());
    assert_eq!(last.max().unwrap() + 1, size, "nothing came to the tenant's log between that and the stop");
}

#[test]
fn an_anchor_that_cannot_be_written_holds_up_no_request_and_is_logged() {
    let mut site = anchored();
    fs::rename(site.path("anchor"), site.path("elsewhere")).unwrap();
    for _ in 0..3 {
        site.strongroom("session list").ok();
    }
    site.stop();
    let log = fs::read_to_string(site.path("server.log")).unwrap();
    assert_eq!(log.matches("the anchor of the access logs cannot be written").count(), 1, "{log}");
    fs::rename(site.path("elsewhere"), site.path("anchor")).unwrap();
    site.serve();
}
