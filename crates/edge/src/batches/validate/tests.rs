use super::*;

fn line(id: &str, model: &str) -> String {
    format!(
        r#"{{"custom_id": "{id}", "method": "POST", "url": "/v1/embeddings", "body": {{"model": "{model}", "input": "x"}}}}"#
    )
}

fn in_dir(dir: &Path, input: &[u8], endpoint: &str) -> Validation {
    let path = dir.join("input.jsonl");
    fs::write(&path, input).unwrap();
    Validation { input: path, parts: dir.join("parts"), endpoint: endpoint.to_owned(), lines_max: 100 }
}

fn validate(input: impl AsRef<[u8]>) -> Event {
    let dir = tempfile::tempdir().unwrap();
    in_dir(dir.path(), input.as_ref(), "/v1/embeddings").run(|| false).unwrap().unwrap()
}

/// Of each error: code, line, param.
fn faults(input: impl AsRef<[u8]>) -> Vec<(String, Option<u64>, Option<String>)> {
    match validate(input) {
        Event::Invalid(errors) => errors.into_iter().map(|error| (error.code, error.line, error.param)).collect(),
        other => panic!("{other:?}"),
    }
}

fn fault_of(input: impl AsRef<[u8]>) -> (String, Option<u64>, Option<String>) {
    let found = faults(input);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn is(code: &str, line: u64, param: Option<&str>) -> (String, Option<u64>, Option<String>) {
    (code.to_owned(), Some(line), param.map(str::to_owned))
}

fn valid(services: &[&str], lines: u64) -> Event {
    let part = |service: &&str| Part { service: (*service).to_owned(), encoding: Some(Encoding::Float) };
    Event::Valid { parts: services.iter().map(part).collect(), lines }
}

#[test]
fn files_of_every_editor_are_fine() {
    let (a, b) = (line("a", "m"), line("b", "m"));
    for input in [
        format!("{a}\n{b}\n"),
        format!("{a}\n{b}"),
        format!("\u{feff}{a}\r\n{b}\r\n"),
        format!("{a}\n\n{b}\n\n\n"),
        format!("  {a}  \n\t{b}"),
    ] {
        assert_eq!(validate(&input), valid(&["m"], 2), "{input}");
    }
}

#[test]
fn each_bad_line_is_told_with_its_number() {
    let good = line("a", "m");
    let told = |bad: &str| fault_of(format!("{good}\n\n{bad}\n"));
    assert_eq!(told("{\"custom_id\": "), is("invalid_json_line", 3, None));
    assert_eq!(told(r#"["b", "POST", "/v1/embeddings", {"model": "m"}, "s"]"#), is("invalid_json_line", 3, None));
    assert_eq!(told(&format!("{good} x")), is("invalid_json_line", 3, None));
    assert_eq!(told(&good), is("duplicate_custom_id", 3, Some("custom_id")));
    let other = line("b", "m");
    assert_eq!(told(&other.replace("/v1/embeddings", "/v1/completions")), is("url_mismatch", 3, Some("url")));
    assert_eq!(told(&other.replace("POST", "GET")), is("invalid_method", 3, Some("method")));
    let without = |field: &str| other.replace(&format!("\"{field}\""), "\"nothing\"");
    for field in ["custom_id", "method", "url", "body"] {
        assert_eq!(told(&without(field)), is("missing_required_parameter", 3, Some(field)));
    }
    assert_eq!(told(&without("model")), is("missing_required_parameter", 3, Some("body.model")));
    assert_eq!(told(&other.replace("\"b\"", "7")), is("invalid_json_line", 3, Some("custom_id")));
    assert_eq!(told(&other.replace("\"m\"", "\"\"")), is("model_not_found", 3, Some("body.model")));
    assert_eq!(
        told(&other.replace("{\"model\": \"m\", \"input\": \"x\"}", "3")),
        is("invalid_json_line", 3, Some("body"))
    );
    assert_eq!(fault_of(b"\xff{}\n"), is("invalid_json_line", 1, None));
    assert_eq!(told(&line(&"i".repeat(LINE_MAX), "m")), is("line_too_long", 3, None));
}

#[test]
fn bounds_are_told_once_and_for_all_of_it() {
    let alone = |code: &str| (code.to_owned(), None, None);
    let lines = |n: u64| (0..n).map(|at| line(&at.to_string(), "m") + "\n").collect::<String>();
    assert_eq!(validate(lines(100)), valid(&["m"], 100));
    assert_eq!(fault_of(lines(101)), alone("too_many_tasks"));
    assert_eq!(fault_of(""), alone("empty_file"));
    assert_eq!(fault_of("\u{feff}\r\n\n"), alone("empty_file"));
    let models = |n: u64| (0..n).map(|at| line(&at.to_string(), &format!("m{at}")) + "\n").collect::<String>();
    assert!(matches!(validate(models(16)), Event::Valid { parts, .. } if parts.len() == 16));
    assert_eq!(fault_of(models(17)), alone("too_many_models"));
    assert_eq!(faults("{\n".repeat(99)).len(), ERRORS_MAX);
}

#[test]
fn lines_of_several_models_are_parted_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = [line("a", "m"), line("b", "n"), line("c", "m").replace("\"x\"", "1e2,  \"z\":  \"\\u00e9\"")];
    let validation = in_dir(dir.path(), format!("\u{feff}{a}\r\n\n{b}\n{c}").as_bytes(), "/v1/embeddings");
    for _ in 0..2 {
        assert_eq!(validation.run(|| false).unwrap(), Some(valid(&["m", "n"], 3)));
        let part = |part| fs::read_to_string(part_file(&validation.parts, part)).unwrap();
        assert_eq!((part(0), part(1)), (format!("{a}\n{c}\n"), format!("{b}\n")));
    }
}

#[test]
fn lines_that_want_their_vectors_otherwise_are_parted_too() {
    let asks = |id: &str, said: &str| line(id, "m").replace("\"x\"", &format!("\"x\", \"encoding_format\": {said}"));
    let lines = [
        line("a", "m"),
        asks("b", "\"base64\""),
        asks("c", "\"int8\""),
        asks("d", "null"),
        asks("e", "7"),
        asks("f", "\"float\""),
    ];
    let encodings = [Some(Encoding::Float), Some(Encoding::Base64), None];
    let parts = encodings.map(|encoding| Part { service: "m".into(), encoding }).to_vec();
    let dir = tempfile::tempdir().unwrap();
    let validation = in_dir(dir.path(), lines.join("\n").as_bytes(), "/v1/embeddings");
    assert_eq!(validation.run(|| false).unwrap(), Some(Event::Valid { parts, lines: 6 }));
    let part = |part| fs::read_to_string(part_file(&validation.parts, part)).unwrap();
    let text = |places: &[usize]| places.iter().map(|at| lines[*at].clone() + "\n").collect::<String>();
    assert_eq!([part(0), part(1), part(2)], [text(&[0, 3, 5]), text(&[1]), text(&[2, 4])]);
}

#[test]
fn tasks_name_their_service_and_have_any_body() {
    let dir = tempfile::tempdir().unwrap();
    let task = |body: &str| {
        let text =
            format!(r#"{{"custom_id": "a", "method": "POST", "url": "/v1/tasks", "service": "s", "body": {body}}}"#);
        in_dir(dir.path(), text.as_bytes(), TASKS).run(|| false).unwrap().unwrap()
    };
    for body in ["\"row\"", "17", "[1]", "{}"] {
        let parts = vec![Part { service: "s".into(), encoding: None }];
        assert_eq!(task(body), Event::Valid { parts, lines: 1 });
    }
    assert!(matches!(task("null"), Event::Invalid(_)));
}

#[test]
fn what_nobody_wants_to_know_is_not_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let input: String = (0..2 * LOOK_EVERY).map(|at| line(&at.to_string(), "m") + "\n").collect();
    let validation = Validation { lines_max: u64::MAX, ..in_dir(dir.path(), input.as_bytes(), "/v1/embeddings") };
    assert_eq!(validation.run(|| true).unwrap(), None);
}
