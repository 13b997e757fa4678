//! What is deployed with, held to what there is: metrics that dashboard and alerts name, run-books that alerts name, the
//! chart's values, their comments and their schema, and that no secret is written anywhere.
//!
//! What needs Helm or the schemas of Kubernetes is checked by `deploy/check.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use strongroom::telemetry::metrics::Metrics;

const CHART: &str = "deploy/helm/strongroom";

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The names of all series that a scrape can have: a histogram's three are its name with an ending.
fn series() -> BTreeSet<String> {
    let text = Metrics::new(["strongroom.v1.ContextService/PutEntry"]).render();
    let heads = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let of = |(name, kind): (&str, &str)| match kind {
        "histogram" => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
        _ => vec![name.to_owned()],
    };
    heads.flat_map(of).collect()
}

/// Words of an expression that name a series.
fn named(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("strongroom_")).map(str::to_owned).collect()
}

/// The texts of every field of this name, at any depth.
fn fields<'v>(value: &'v Value, name: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(name).and_then(Value::as_str));
            object.values().for_each(|value| fields(value, name, found));
        }
        Value::Array(array) => array.iter().for_each(|value| fields(value, name, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Lines of an alert's field, such as `summary`, in the order of the alerts.
fn alert_lines(text: &str, name: &str) -> Vec<String> {
    let head = format!("{name}: ");
    text.lines()
        .filter_map(|line| Some(line.trim_start_matches([' ', '-']).strip_prefix(&head)?.to_owned()))
        .collect()
}

/// The expressions of the alerts: the line below each `expr`.
fn alert_expressions(text: &str) -> Vec<&str> {
    let lines: Vec<_> = text.lines().collect();
    lines.windows(2).filter(|pair| pair[0].trim() == "expr: |-").map(|pair| pair[1].trim()).collect()
}

/// A value of `values.yaml`: its path, and whether a comment stands above it.
struct Stated {
    path: Vec<String>,
    commented: bool,
}

/// Reads the part of YAML that `values.yaml` is written in: two spaces a level, one key a line, lists within one line or
/// with a dash. What stands in a list's items is not followed.
fn stated(text: &str) -> Vec<Stated> {
    let (mut path, mut found, mut commented) = (Vec::<String>::new(), Vec::new(), false);
    let mut list = None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let depth = line.len() - line.trim_start().len();
        if line.trim_start().starts_with('#') {
            commented = true;
            continue;
        }
        if line.trim_start().starts_with("- ") {
            list = Some(depth);
        } else if list.is_none_or(|at| depth < at) {
            list = None;
            let (key, _) = line.trim().split_once(':').expect("a key");
            path.truncate(depth / 2);
            path.push(key.to_owned());
            found.push(Stated { path: path.clone(), commented });
        }
        commented = false;
    }
    found
}

/// The schema of a value, with references followed.
fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    match schema["$ref"].as_str() {
        Some(reference) => &root["definitions"][reference.rsplit('/').next().unwrap()],
        None => schema,
    }
}

/// The paths of everything that the schema knows, and of every object in it that lets in what it does not know.
fn known(root: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>, open: &mut Vec<String>) {
    let schema = resolve(root, schema);
    if schema["type"] == "array" {
        known(root, &schema["items"], &format!("{path}[]"), found, open);
    }
    if schema["type"] == "object" {
        // A map of labels or annotations: any name, but only bounded strings.
        let map = schema["additionalProperties"]["type"] == "string" && schema["maxProperties"].is_u64();
        if schema["additionalProperties"] != Value::Bool(false) && !map {
            open.push(path.to_owned());
        }
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        known(root, inner, &path, found, open);
        found.insert(path);
    }
}

#[test]
fn the_dashboard_names_only_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read(format!("{CHART}/files/dashboard.json"))).unwrap();
    let (series, mut expressions) = (series(), Vec::new());
    fields(&dashboard["panels"], "expr", &mut expressions);
    fields(&dashboard["templating"], "query", &mut expressions);
    assert!(expressions.len() > 20, "{expressions:?}");
    for expression in expressions {
        let unknown: Vec<_> = named(expression).difference(&series).cloned().collect();
        assert!(unknown.is_empty(), "{unknown:?} in {expression}");
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let shown = named(&read(format!("{CHART}/files/dashboard.json")));
    // Sums and counts of histograms are in their buckets.
    let missing: Vec<_> =
        series().into_iter().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count")).collect();
    let missing: Vec<_> = missing.iter().filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn alerts_name_only_metrics_that_exist() {
    let text = read(format!("{CHART}/files/alerts.yaml"));
    let (series, expressions) = (series(), alert_expressions(&text));
    assert_eq!(expressions.len(), alert_lines(&text, "alert").len());
    for expression in expressions {
        let names = named(expression);
        assert!(!names.is_empty(), "{expression} asks for nothing of ours");
        let unknown: Vec<_> = names.difference(&series).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {expression}");
    }
}

#[test]
fn every_alert_has_a_run_book() {
    let text = read(format!("{CHART}/files/alerts.yaml"));
    let operations = read("docs/operations.md");
    let headings: BTreeSet<_> = operations.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts = alert_lines(&text, "alert");
    for (alert, runbook) in alerts.iter().zip(alert_lines(&text, "runbook")) {
        assert!(headings.contains(alert.as_str()), "no run-book of {alert}");
        assert_eq!(runbook, format!("docs/operations.md#{}", alert.to_lowercase()));
    }
    let without: Vec<_> = headings.iter().filter(|heading| heading.starts_with("Strongroom")).collect();
    assert_eq!(without.len(), alerts.len(), "run-books and alerts differ: {without:?}");
}

#[test]
fn every_value_has_a_comment() {
    let values = stated(&read(format!("{CHART}/values.yaml")));
    assert!(values.len() > 100, "{}", values.len());
    let bare: Vec<_> =
        values.iter().filter(|value| !value.commented).map(|value| value.path.join(".")).collect();
    assert!(bare.is_empty(), "{bare:?}");
}

#[test]
fn values_and_schema_know_the_same() {
    let schema: Value = serde_json::from_str(&read(format!("{CHART}/values.schema.json"))).unwrap();
    let (mut found, mut open) = (BTreeSet::new(), Vec::new());
    known(&schema, &schema, "", &mut found, &mut open);
    assert!(open.is_empty(), "objects that let in what they do not know: {open:?}");
    let values: BTreeSet<_> = stated(&read(format!("{CHART}/values.yaml")))
        .iter()
        .map(|value| format!(".{}", value.path.join(".")))
        .collect();
    let unknown: Vec<_> = values.difference(&found).collect();
    assert!(unknown.is_empty(), "values that the schema does not know: {unknown:?}");
    // `global` is Helm's; a limit of processor time is possible and not recommended.
    let silent: Vec<_> = found
        .difference(&values)
        .filter(|path| !path.contains("[]") && *path != ".global" && !path.ends_with(".limits.cpu"))
        .collect();
    assert!(silent.is_empty(), "what the schema knows and values.yaml does not say: {silent:?}");
}

#[test]
fn no_file_of_the_deployment_holds_a_secret() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let marks = ["srt_", "srk_", "PRIVATE KEY", "hvs.", "eyJhbGciOi", "kind: Secret", "stringData:"];
    let read = files(&directory);
    assert!(read.len() > 30, "{}", read.len());
    for path in read {
        let Ok(text) = fs::read_to_string(&path) else { panic!("{} is not text", path.display()) };
        for mark in marks {
            assert!(!text.contains(mark), "{mark:?} in {}", path.display());
        }
    }
}

#[test]
fn what_this_test_reads_values_with_sees_what_is_wrong() {
    let text = "# a\na: 1\nb:\n  # c\n  c: 2\n  d: []\n# e\ne:\n  - x: 1\n    y: 2\n# f\nf: {}\n";
    let values = stated(text);
    let paths: Vec<_> = values.iter().map(|value| value.path.join(".")).collect();
    assert_eq!(paths, ["a", "b", "b.c", "b.d", "e", "f"]);
    let bare: Vec<_> =
        values.iter().filter(|value| !value.commented).map(|value| value.path.join(".")).collect();
    assert_eq!(bare, ["b", "b.d"]);
    assert_eq!(named("rate(strongroom_a_total[5m]) > strongroom_b{x=\"y\"}").len(), 2);
}
