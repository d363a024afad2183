use super::*;

fn load(file: &str, environment: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("comity.toml");
    std::fs::write(&path, file).unwrap();
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sets = sets.iter().map(|text| (*text).to_owned()).collect();
    Sources { file: Some(&path), environment, sets }.load()
}

fn refusal(file: &str, environment: &[(&str, &str)], sets: &[&str]) -> String {
    load(file, environment, sets).unwrap_err().to_string()
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let file = "region = \"file\"\n[ready]\nlag_max = 1\n[journal]\ndays_max = 2\n";
    let environment = [("COMITY_REGION", "environment"), ("COMITY_READY_LAG_MAX", "3")];
    let config = load(file, &environment, &["region=flag"]).unwrap();
    assert_eq!(config.region.as_deref(), Some("flag"));
    assert_eq!((config.ready.lag_max, config.journal.days_max, config.http.streams_max), (3, 2, 256));
    let config = load("", &[], &["storage.log_days_max=1"]).unwrap();
    assert_eq!((config.storage.log_days_max, config.storage.log_bytes_max), (1, 0));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one_wherever_it_is() {
    let file = refusal("[http]\nlissten = []\n", &[], &[]);
    assert!(file.contains("there is no key \"http.lissten\"; the nearest one is \"http.listen\""), "{file}");
    let file = refusal("days_max = 3\n", &[], &[]);
    assert!(file.contains("\"days_max\"; the nearest one is \"journal.days_max\""), "{file}");
    let environment = refusal("", &[("COMITY_HTTP_LISTN", "x")], &[]);
    assert!(
        environment.contains("COMITY_HTTP_LISTN") && environment.contains("\"COMITY_HTTP_LISTEN\""),
        "{environment}"
    );
    let flag = refusal("", &[], &["http.listn=x"]);
    assert!(flag.contains("\"http.listn\"; the nearest one is \"http.listen\""), "{flag}");
    let token = "[[http.tokens]]\nname = \"a\"\nhash = \"b\"\nscope = [\"read\"]\n";
    let token = refusal(token, &[], &[]);
    assert!(token.contains("\"http.tokens.scope\"; the nearest one is \"http.tokens.scopes\""), "{token}");
}

#[test]
fn a_value_of_the_wrong_form_is_refused_by_name() {
    let file = refusal("[http]\nconnections_max = \"many\"\n", &[], &[]);
    assert!(
        file.contains("http.connections_max must be a whole number from 0 on, and is \"many\""),
        "{file}"
    );
    let environment = refusal("", &[("COMITY_READY_LAG_MAX", "-1")], &[]);
    assert!(
        environment.contains("COMITY_READY_LAG_MAX: ready.lag_max must be a whole number"),
        "{environment}"
    );
    let address = refusal("", &[], &["http.listen=localhost:1"]);
    assert!(address.contains("write an IP address and a port"), "{address}");
}

#[test]
fn an_address_that_others_reach_needs_tokens_and_tls() {
    let open = "http.listen=0.0.0.0:4480";
    let refused = refusal("", &[], &[open]);
    assert!(refused.contains("add a token"), "{refused}");
    let token = format!(
        "[[http.tokens]]\nname = \"a\"\nhash = \"{}\"\nscopes = [\"write\"]\n",
        blake3::hash(b"t").to_hex()
    );
    let refused = refusal(&token, &[], &[open]);
    assert!(refused.contains("in the clear"), "{refused}");
    assert!(load(&token, &[], &[open, "http.plaintext=true"]).is_ok());
    assert!(load(&token, &[], &[open, "http.tls.certificate=c.pem", "http.tls.key=k.pem"]).is_ok());
    let refused = refusal(&token, &[], &[open, "http.tls.certificate=c.pem"]);
    assert!(refused.contains("give both"), "{refused}");
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_left_alone() {
    assert!(load("", &[("COMITY_SERVICE_HOST", "10.0.0.1"), ("COMITY_PORT_80_TCP", "tcp://x")], &[]).is_ok());
}

#[test]
fn the_documented_schema_holds_every_key_and_is_a_file_that_loads() {
    let documented = documented();
    assert!(load(&documented, &[], &[]).is_ok());
    for key in KEYS {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(documented.contains(name), "{name}");
    }
    // With the comments of all defaults taken away it means the same.
    let given: String = documented
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") && !rest.contains('…') && !line.contains("COMITY_") => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let (plain, spelled_out) = (load("", &[], &[]).unwrap(), load(&given, &[], &[]).unwrap());
    assert_eq!(format!("{plain:?}"), format!("{spelled_out:?}"));
}
