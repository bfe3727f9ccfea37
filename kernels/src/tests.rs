use crate::testing::params;
use crate::*;

fn message<T>(result: Result<T, KernelError>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_unknown_kernel_is_answered_with_the_nearest_and_all_names() {
    let names: Vec<&str> = registry().iter().map(|kernel| kernel.descriptor().name).collect();
    assert!(names.is_sorted() && names.contains(&"noop"), "{names:?}");
    let known = format!("known kernels: {}", names.join(", "));
    assert_eq!(message(find("word_cuont")), format!("unknown kernel 'word_cuont'; did you mean 'word_count'? {known}"));
    assert_eq!(message(find("grind")), format!("unknown kernel 'grind'; {known}"));
    assert_eq!(find("noop").unwrap().descriptor().name, "noop");
}

#[test]
fn an_unknown_parameter_is_answered_with_the_nearest() {
    let histogram = find("histogram").unwrap().descriptor();
    assert_eq!(
        message(resolve_params(histogram, &params(&[("bin", "3")]))),
        "kernel 'histogram': unknown parameter 'bin'; did you mean 'bins'? its parameters: bins, low, high"
    );
    let word_count = find("word_count").unwrap().descriptor();
    assert_eq!(
        message(resolve_params(word_count, &params(&[("case", "fold")]))),
        "kernel 'word_count': unknown parameter 'case'; its parameters: none"
    );
}

#[test]
fn limits_are_named() {
    let histogram = find("histogram").unwrap().descriptor();
    let given = |name, value| message(resolve_params(histogram, &params(&[(name, value)])));
    assert_eq!(given("bins", "5000"), "kernel 'histogram': parameter 'bins' = 5000 is outside 1..=4096");
    assert_eq!(given("bins", "many"), "kernel 'histogram': parameter 'bins' must be a whole number 1..=4096, not 'many'");
    assert_eq!(given("bins", "-1"), "kernel 'histogram': parameter 'bins' must be a whole number 1..=4096, not '-1'");
    assert!(given("low", "NaN").contains("is outside"));
    assert!(given("low", "cold").contains("must be a number"));
    let noop = find("noop").unwrap().descriptor();
    assert_eq!(
        message(resolve_params(noop, &params(&[("print", "yse")]))),
        "kernel 'noop': unknown value of parameter 'print': 'yse'; did you mean 'yes'? choices: no, yes"
    );
}

#[test]
fn a_missing_required_parameter_says_what_it_is_for() {
    let spec = ParamSpec { name: "seed", kind: ParamType::U64 { min: 0, max: 9 }, default: None, doc: "where the numbers start" };
    let descriptor = Descriptor { params: Box::leak(Box::new([spec])), ..copy_of(find("noop").unwrap().descriptor()) };
    assert_eq!(
        message(resolve_params(&descriptor, &Params::new())),
        "kernel 'noop': parameter 'seed' is required: where the numbers start"
    );
}

fn copy_of(d: &Descriptor) -> Descriptor {
    Descriptor { ..*d }
}

#[test]
fn defaults_are_filled_in_and_resolving_twice_changes_nothing() {
    for kernel in registry() {
        let required = kernel.descriptor().params.iter().filter(|spec| spec.default.is_none());
        let given = required.map(|spec| (spec.name.to_owned(), "1".to_owned())).collect();
        let once = resolve_params(kernel.descriptor(), &given).unwrap();
        assert_eq!(once.len(), kernel.descriptor().params.len());
        assert_eq!(resolve_params(kernel.descriptor(), &once).unwrap(), once);
    }
}

#[test]
fn numbers_have_one_spelling() {
    let histogram = find("histogram").unwrap().descriptor();
    let spelled = |name: &str, value: &str| resolve_params(histogram, &params(&[(name, value)])).unwrap()[name].clone();
    assert_eq!(spelled("bins", "1_000"), "1000");
    assert_eq!(spelled("bins", "1e3"), "1000");
    assert_eq!(spelled("low", "-0"), "0");
    assert_eq!(spelled("low", "1.50"), "1.5");
    assert_eq!(spelled("low", "1e-9"), "1e-9");
    assert_eq!(spelled("low", "0.1e31"), "1e30");
}

#[test]
fn a_reduce_takes_what_the_job_gave_then_what_the_map_suggests_then_its_own_default() {
    let (map, reduce) = (find("word_count").unwrap().descriptor(), find("sum_by_key").unwrap().descriptor());
    let resolved = reduce_params(map, reduce, &params(&[("value_name", "times")])).unwrap();
    assert_eq!(resolved, params(&[("key_name", "word"), ("value_name", "times"), ("key_type", "text")]));
}

#[test]
fn the_registry_is_sorted_and_its_descriptors_are_consistent() {
    let names: Vec<_> = registry().iter().map(|kernel| kernel.descriptor().name).collect();
    assert!(names.is_sorted());
    for kernel in registry() {
        let d = kernel.descriptor();
        assert_eq!(d.kind == Kind::Reduce, matches!(d.accepts, Accepts::Shuffle | Accepts::TwoShuffles), "{}", d.name);
        assert_eq!(d.kind == Kind::Reduce, !d.formats.is_empty(), "{}", d.name);
        assert_eq!(d.shuffles, !d.reduces_with.is_empty(), "{}", d.name);
        for reduce in d.reduces_with {
            let reduce = find(reduce).unwrap().descriptor();
            assert_eq!(reduce.kind, Kind::Reduce);
            reduce_params(d, reduce, &Params::new()).unwrap();
            for (name, _) in d.reduce_defaults {
                let known = d.reduces_with.iter().any(|r| find(r).unwrap().descriptor().params.iter().any(|spec| spec.name == *name));
                assert!(known, "{} suggests '{name}', which no reduce of it knows", d.name);
            }
        }
    }
}
