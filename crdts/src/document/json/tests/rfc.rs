//! The examples of the RFCs, as cases.

use serde_json::{Value, json};

use super::super::{merge_patch, patch};
use super::{at, document, edit, whole};

#[test]
fn merge_patches_do_what_rfc_7396_appendix_a_says() {
    let cases = json!([
        [{"a": "b"}, {"a": "c"}, {"a": "c"}],
        [{"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}],
        [{"a": "b"}, {"a": null}, {}],
        [{"a": "b", "b": "c"}, {"a": null}, {"b": "c"}],
        [{"a": ["b"]}, {"a": "c"}, {"a": "c"}],
        [{"a": "c"}, {"a": ["b"]}, {"a": ["b"]}],
        [{"a": {"b": "c"}}, {"a": {"b": "d", "c": null}}, {"a": {"b": "d"}}],
        [{"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}],
        [["a", "b"], ["c", "d"], ["c", "d"]],
        [{"a": "b"}, ["c"], ["c"]],
        [{"a": "foo"}, null, null],
        [{"a": "foo"}, "bar", "bar"],
        [{"e": null}, {"a": 1}, {"e": null, "a": 1}],
        [[1, 2], {"a": "b", "c": null}, {"a": "b"}],
        [{}, {"a": {"bb": {"ccc": null}}}, {"a": {"bb": {}}}],
    ]);
    let cases: Vec<[Value; 3]> = serde_json::from_value(cases).unwrap();
    assert_eq!(cases.len(), 15);
    for [original, change, result] in cases {
        // A document's root is a map, so the targets that are none lie one level deeper.
        let mut document = document(&json!({ "target": original }));
        edit(&mut document, |tx| merge_patch(tx, "/target", &change)).unwrap();
        assert_eq!(at(&document, "/target"), Some(result.clone()), "{original} and {change}");
        if original.is_object() && result.is_object() {
            let mut document = super::document(&original);
            edit(&mut document, |tx| merge_patch(tx, "", &change)).unwrap();
            assert_eq!(whole(&document), result, "{original} and {change}");
        }
    }
}

/// The numbers are those of the sections. A.12 repeats a key within an operation, which is the parser's matter, and
/// A.15 tests numbers against strings, as the last case does.
#[test]
fn patches_do_what_rfc_6902_appendix_a_says() {
    let cases = json!([
        [1, {"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}],
        [2, {"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}],
            {"foo": ["bar", "qux", "baz"]}],
        [3, {"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}],
        [4, {"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}],
        [5, {"baz": "qux", "foo": "bar"}, [{"op": "replace", "path": "/baz", "value": "boo"}],
            {"baz": "boo", "foo": "bar"}],
        [6, {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}],
        [7, {"foo": ["all", "grass", "cows", "eat"]}, [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
            {"foo": ["all", "cows", "eat", "grass"]}],
        [8, {"baz": "qux", "foo": ["a", 2, "c"]},
            [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
            {"baz": "qux", "foo": ["a", 2, "c"]}],
        [9, {"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], null],
        [10, {"foo": "bar"}, [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
            {"foo": "bar", "child": {"grandchild": {}}}],
        [11, {"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}],
            {"foo": "bar", "baz": "qux"}],
        [12, {"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], null],
        [14, {"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}],
        [15, {"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}], null],
        [16, {"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
            {"foo": ["bar", ["abc", "def"]]}],
    ]);
    let cases: Vec<(u32, Value, Value, Value)> = serde_json::from_value(cases).unwrap();
    assert_eq!(cases.len(), 15);
    for (section, before, operations, after) in cases {
        let mut document = document(&before);
        let result = edit(&mut document, |tx| patch(tx, &operations));
        assert_eq!(result.is_err(), after.is_null(), "A.{section}: {result:?}");
        let expected = if after.is_null() { before } else { after };
        assert_eq!(whole(&document), expected, "A.{section}");
    }
}
