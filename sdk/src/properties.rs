use std::fmt;

/// librdkafka properties that a person set, shown without secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    pairs: Vec<(String, String)>,
}

impl Properties {
    pub(crate) fn set(&mut self, key: String, value: String) {
        self.pairs.retain(|(k, _)| *k != key);
        self.pairs.push((key, value));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// A sentence for each property that the SDK sets itself.
    pub(crate) fn refuse(&self, owned: &[(&str, &str)]) -> Vec<String> {
        let of = |key: &str| owned.iter().find(|(k, _)| *k == key).map(|(_, why)| *why);
        self.iter()
            .filter_map(|(k, _)| of(k).map(|why| format!("property {k} cannot be set: {why}")))
            .collect()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(k, v)| (k, if is_secret(k) { "(redacted)" } else { v })))
            .finish()
    }
}

/// Whether a property's value must not be shown. Broad on purpose: a path that is hidden too costs little.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    [
        "password",
        "secret",
        "token",
        "jaas",
        "pem",
        "ssl.key",
        "oauthbearer.config",
        "sasl.username",
        "assertion",
    ]
    .iter()
    .any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let mut p = Properties::default();
        for key in ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"] {
            p.set(key.into(), "hunter2".into());
        }
        p.set("client.rack".into(), "a1".into());
        let shown = format!("{p:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("a1"), "{shown}");
    }
}
