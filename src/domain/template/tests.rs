use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::expression::MOST_BYTES;
use super::*;

/// Task `a` has ended, `b` was skipped, of the rest nothing is known.
struct Ended(Value);

impl Ended {
    fn of(&self, task: &str, pointer: &str) -> Found<'_> {
        match (task, self.0.get(task)) {
            (_, Some(it)) => {
                it.pointer(pointer).map_or(Found::Missing, |it| Found::Value(Cow::Borrowed(it)))
            }
            _ => Found::Later,
        }
    }
}

impl Tasks for Ended {
    fn output(&self, task: &str, output: &str) -> Found<'_> {
        self.of(task, &format!("/outputs/{output}"))
    }

    fn state(&self, task: &str) -> Found<'_> {
        self.of(task, "/state")
    }

    fn exit_code(&self, task: &str) -> Found<'_> {
        self.of(task, "/exit_code")
    }

    fn failure(&self, task: &str) -> Found<'_> {
        self.of(task, "/failure")
    }
}

fn with_scope<T>(use_it: impl FnOnce(&RunScope<'_>) -> T) -> T {
    let params: Map<String, Value> = json!({
        "n": 2, "f": 1.5, "t": "a b", "yes": true, "none": null, "list": [1, "x", {"k": [true]}], "my-param": "dash",
        "big": u64::MAX, "obj": {"b": 1, "a": "ä"}, "long": "x".repeat(100_000), "json": "{\"k\": [1, 2]}",
    })
    .as_object()
    .cloned()
    .unwrap();
    let tasks = Ended(json!({
        "a": {"state": "failed", "exit_code": 3, "outputs": {"x": {"rows": [1, 2]}, "report.csv": "r", "n": 7}, "failure": {"reason": "exit_nonzero"}},
        "my-task": {"state": "succeeded", "exit_code": 0, "outputs": {"a-b": [null, 1]}},
        "b": {"state": "skipped"},
    }));
    let item = json!({"os": "linux", "v": 3});
    use_it(&RunScope {
        params: Some(&params),
        run_id: Some("7"),
        run_name: Some("etl"),
        run_state: None,
        tasks: &tasks,
        item: Some(&item),
    })
}

fn evaluate(text: &str) -> Result<Option<Value>, String> {
    with_scope(|scope| Template::parse(text)?.evaluate(scope))
}

#[test]
fn what_stands_alone_keeps_its_type_and_in_a_text_it_is_text() {
    for (text, value) in [
        ("plain", json!("plain")),
        ("${{ params.n }}", json!(2)),
        ("${{params.n}}", json!(2)),
        ("n=${{ params.n }}", json!("n=2")),
        (" ${{ params.n }}", json!(" 2")),
        ("${{ params.n }}${{ params.f }}", json!("21.5")),
        ("${{ params.yes }}", json!(true)),
        ("${{ params.none }}", json!(null)),
        ("[${{ params.none }}]", json!("[]")),
        ("${{ params.big }}", json!(u64::MAX)),
        ("${{ params.list }}", json!([1, "x", {"k": [true]}])),
        ("x ${{ params.obj }}", json!("x {\"a\":\"ä\",\"b\":1}")),
        ("${{ params.list[2].k.0 }}", json!(true)),
        ("${{ params['t'] }}", json!("a b")),
        ("${{ params.my-param }}", json!("dash")),
        ("${{ tasks.my-task.outputs.a-b }}", json!([null, 1])),
        ("${{ tasks['a'].outputs[\"report.csv\"] }}", json!("r")),
        ("${{ tasks.a.outputs.x.rows }}", json!([1, 2])),
        ("${{ tasks.a.state }}", json!("failed")),
        ("${{ tasks.a.exit_code }}", json!(3)),
        ("${{ tasks.a.failure.reason }}", json!("exit_nonzero")),
        ("${{ run.id }}-${{ run.name }}", json!("7-etl")),
        ("${{ item }}", json!({"os": "linux", "v": 3})),
        ("${{ item.os }}/${{ matrix.v }}", json!("linux/3")),
        // Expressions.
        ("${{ params.n + 1 }}", json!(3)),
        ("${{ params.n - 1 }}", json!(1)),
        ("${{ params.n|times(2.5) }}", json!(5.0)),
        ("${{ params.n|times(3) }}", json!(6)),
        ("${{ params.n > 1 and tasks.a.state == 'failed' }}", json!(true)),
        ("${{ 'yes' if params.yes else 'no' }}", json!("yes")),
        ("${{ params.t ~ '!' }}", json!("a b!")),
        ("${{ params.t|upper|split }}", json!(["A", "B"])),
        ("${{ params.list|length }}", json!(3)),
        ("${{ params.obj|keys }}", json!(["a", "b"])),
        ("${{ params.obj|items }}", json!([["a", "ä"], ["b", 1]])),
        ("${{ params.json|fromjson }}", json!({"k": [1, 2]})),
        ("${{ params.obj|tojson }}", json!("{\"a\":\"ä\",\"b\":1}")),
        ("${{ [params.n, {'k': {'l': params.t}}] }}", json!([2, {"k": {"l": "a b"}}])),
        ("${{ {'a': {'b': {}}} }}", json!({"a": {"b": {}}})),
        ("${{ range(3)|list }}", json!([0, 1, 2])),
        ("${{ range(1, 3) }}", json!([1, 2])),
        ("${{ tasks.a.outputs.x.rows|map('string')|join('+') }}", json!("1+2")),
        ("${{ params.list[0] is number }}", json!(true)),
        ("${{ params.list[params.n].k }}", json!([true])),
        ("${{ 'x' in params.list and 'y' not in params.list }}", json!(true)),
        // What is not there.
        ("${{ tasks.b.outputs.x|default('none') }}", json!("none")),
        ("${{ params.nowhere is defined }}", json!(false)),
        ("${{ params.nowhere is not defined }}", json!(true)),
        ("${{ tasks.b.state == 'succeeded' and tasks.b.outputs.x > 1 }}", json!(false)),
        // The characters themselves.
        ("${{ '${{' }} and }}", json!("${{ and }}")),
        ("${{ \"}}\" }}", json!("}}")),
        ("$ {{ x }} ${x} {% y %} {# z #}", json!("$ {{ x }} ${x} {% y %} {# z #}")),
    ] {
        assert_eq!(evaluate(text), Ok(Some(value)), "{text}");
    }
}

#[test]
fn what_is_not_known_yet_leaves_the_rest_for_later() {
    for text in [
        "${{ tasks.c.outputs.x }}",
        "a ${{ tasks.c.state }}",
        "${{ run.state }}",
        "${{ params.n + tasks.c.exit_code }}",
    ] {
        assert_eq!(evaluate(text), Ok(None), "{text}");
    }
}

#[test]
fn every_slip_is_named_with_its_place_and_the_fix() {
    let faults: Vec<String> = [
        "${{ params.n",
        "a ${{ }}",
        "${{ parms.n }}",
        "${{ n }}",
        "äö ${{ params.n + }}",
        "${{ params }}",
        "${{ params[item] }}",
        "${{ tasks.a }}",
        "${{ tasks.a.output.x }}",
        "${{ tasks.a.outputs }}",
        "${{ tasks.a.log }}",
        "${{ tasks[item].state }}",
        "${{ run.number }}",
        "${{ matrix }}",
        "${{ params.t|uper }}",
        "${{ params.t|center }}",
        "${{ params.t is defind }}",
        "${{ always() }}",
        "${{ fromJSON(params.t) }}",
        "${{ debug() }}",
        "${{ params.t.upper() }}",
        "${{ (params.t).upper() }}",
        "${{ params.n && params.yes }}",
        "${{ params.n || params.yes }}",
        "${{ !params.yes }}",
        "${{ params.n * 2 }}",
        "${{ 'a }}",
        "${{ params.n ; 1 }}",
        "${{ params.n = 1 }}",
        "${{ é }}",
        "${{ range(1) + range(1) + range(1) }}",
    ]
    .iter()
    .map(|it| format!("{it}\n    {}", evaluate(it).unwrap_err()))
    .collect();
    insta::assert_snapshot!(faults.join("\n"));
}

#[test]
fn what_fails_when_it_is_evaluated_says_what_has_no_value() {
    let faults: Vec<String> = [
        "${{ params.nowhere }}",
        "${{ params.list[7] }}",
        "${{ tasks.b.outputs.x }}",
        "${{ tasks.b.outputs.x > 1 }}",
        "${{ params.obj.c ~ '' }}",
        "${{ params.n / 0 }}",
        "${{ params.n + params.t }}",
        "${{ params.t|int }}",
        "${{ params.t|fromjson }}",
        "${{ params.n|split }}",
        "${{ []|first }}",
        "${{ 1e400 }}",
    ]
    .iter()
    .map(|it| format!("{it}\n    {}", evaluate(it).unwrap_err()))
    .collect();
    insta::assert_snapshot!(faults.join("\n"));
}

#[test]
fn what_would_explode_is_stopped() {
    let doubled =
        |filter: &str, times: usize| format!("${{{{ params.long{} }}}}", filter.repeat(times));
    let nested = format!("${{{{ {}1{} }}}}", "(".repeat(1_000), ")".repeat(1_000));
    let many = (0..100).map(|it| format!("params.p{it}")).collect::<Vec<_>>().join(" ~ ");
    for text in [
        "${{ params.long|replace('x', params.long) }}".to_owned(),
        "${{ params.long|split('x')|join(params.long) }}".to_owned(),
        doubled("|replace('x','xx')", 30),
        doubled("|tojson|replace('x','\"')", 30),
        doubled("|split('x')|string", 30),
        "${{ range(100001)|list }}".to_owned(),
        "${{ range(100000)|map('default')|map('string', 1)|join(params.long) }}".to_owned(),
        format!("${{{{ {} }}}}", vec!["params.long"; 400].join("~")),
        format!("${{{{ {many} }}}}"),
        nested,
        format!("${{{{ '{}' }}}}", "x".repeat(10_000)),
    ] {
        let begun = std::time::Instant::now();
        let it = evaluate(&text);
        let shown: String = text.chars().take(80).collect();
        match it {
            Err(fault) => assert!(fault.len() < 400, "{shown}: {fault}"),
            Ok(it) => {
                assert!(it.is_some_and(|it| it.to_string().len() <= MOST_BYTES + 2), "{shown}")
            }
        }
        assert!(begun.elapsed().as_secs() < 60, "{shown}: {:?}", begun.elapsed());
    }
}

#[test]
fn references_are_listed_once() {
    let it = Template::parse(
        "${{ tasks.a.outputs.x.y }} ${{ tasks.a.outputs.x ~ params.p }} ${{ item.z }}",
    );
    assert_eq!(
        it.unwrap().references(),
        [
            Reference::TaskOutput { task: "a".to_owned(), output: "x".to_owned() },
            Reference::Param("p".to_owned()),
            Reference::Item,
        ]
    );
    let only = |text: &str| Template::parse(text).unwrap().only_reference().cloned();
    assert_eq!(only("${{ run.id }}"), Some(Reference::RunId));
    assert_eq!(only("${{ params.a.b }}"), None);
    assert_eq!(only("${{ run.id }} "), None);
}

#[test]
fn a_document_is_filled_in_whole() {
    let document = json!({
        "image": "a:${{ params.n }}", "n": {"$from": "params.n"}, "list": ["x", {"$from": "${{ item.os }}"}, {"deep/er": "${{ params.list }}"}],
        "plain": {"a": [1, null, "{{ x }}"]},
    });
    assert_eq!(
        with_scope(|it| render(&document, it)),
        Ok(json!({
            "image": "a:2", "n": 2, "list": ["x", "linux", {"deep/er": [1, "x", {"k": [true]}]}], "plain": {"a": [1, null, "{{ x }}"]},
        }))
    );
    let document = json!({
        "a": "${{ params.nowhere }}", "b/c": [{"$from": "x y", "z": 1}, {"$from": 1}, "${{ tasks.c.state }}"], "d": {"$from": "params."},
        "e": {"$from": "a ${{ params.n }}"},
    });
    let faults = with_scope(|it| render(&document, it)).unwrap_err();
    let faults: Vec<_> =
        faults.iter().map(|it| format!("{} {}: {}", it.pointer, it.code, it.detail)).collect();
    insta::assert_snapshot!(faults.join("\n"));
    let document = json!(vec!["${{ params.long }}"; 20]);
    let faults = with_scope(|it| render(&document, it)).unwrap_err();
    assert_eq!((faults.len(), faults[0].code, faults[0].pointer.as_str()), (1, "too_large", "/10"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = evaluate(&text);
        let _ = evaluate(&format!("${{{{ {text} }}}}"));
    }

    /// Made of what expressions are made of, it gets further.
    #[test]
    fn no_expression_panics(words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 1..14)) {
        let text = format!("${{{{ {} }}}}", words.join(" "));
        if let Ok(Some(value)) = evaluate(&text) {
            prop_assert!(value.to_string().len() < 4 * MOST_BYTES);
        }
        let joined = format!("${{{{ {} }}}}", words.concat());
        let _ = evaluate(&joined);
    }

    /// A text without expressions is what it was.
    #[test]
    fn a_plain_text_stays(text in "[^$]*") {
        prop_assert_eq!(evaluate(&text), Ok(Some(Value::String(text))));
    }
}

const WORDS: &[&str] = &[
    "params.n",
    "params.list",
    "params.t",
    "params.obj",
    "tasks.a.outputs.x",
    "tasks.b.outputs.x",
    "item",
    "matrix.os",
    "run.id",
    "1",
    "'a'",
    "0",
    "-",
    "+",
    "~",
    "/",
    "%",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    ".",
    "|",
    "join(',')",
    "split",
    "map('string')",
    "default(1)",
    "first",
    "length",
    "sort",
    "unique",
    "sum",
    "times(2)",
    "tojson",
    "fromjson",
    "string",
    "list",
    "keys",
    "items",
    "is",
    "not",
    "defined",
    "and",
    "or",
    "in",
    "if",
    "else",
    "range(5)",
    "==",
    "<",
    "x",
    "none",
    "true",
    "round(2)",
    "select('odd')",
    "reverse",
    "min",
    "replace('a','b')",
    "[-1]",
    "[1:]",
    "[::-1]",
];
