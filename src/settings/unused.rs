//! Settings that are accepted but that this version does not act on.
//!
//! They are checked, so that a configuration written for the whole product loads; and they are named at
//! start, because a limit that nobody enforces must not look like one.

use super::Settings;

/// One note for each setting that is given and has no effect.
pub(super) fn notes(settings: &Settings) -> Vec<String> {
    let mut unused = Vec::new();
    for (name, policy) in &settings.policy {
        let limits = [
            ("rpm_limit", policy.rpm_limit),
            ("tpm_limit", policy.tpm_limit),
            ("daily_limit", policy.daily_limit),
        ];
        unused.extend(
            limits.iter().filter(|(_, limit)| limit.is_some()).map(|(key, _)| format!("policy.{name}.{key}")),
        );
    }
    for (name, alias) in &settings.models {
        // An alias's targets are asked in the order in which they are written.
        let weighted = alias.targets.iter().enumerate().filter(|(_, target)| target.weight.is_some());
        unused.extend(weighted.map(|(index, _)| format!("models.{name}.targets[{index}].weight")));
    }
    let given = [
        (
            "redis",
            settings.redis.host.is_some()
                || settings.redis.url.is_some()
                || !settings.redis.sentinels.is_empty(),
        ),
        ("telemetry.enabled", settings.telemetry.enabled),
    ];
    unused.extend(given.iter().filter(|(_, given)| *given).map(|(key, _)| (*key).to_owned()));
    unused.into_iter().map(|key| format!("{key} is set, but this version does not act on it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PolicySettings;

    #[test]
    fn what_has_no_effect_is_named() {
        let mut settings = Settings::default();
        assert_eq!(notes(&settings), Vec::<String>::new());
        let policy = PolicySettings { rpm_limit: Some(15), ..PolicySettings::default() };
        settings.policy.insert("gemini".to_owned(), policy);
        settings.redis.host = Some("cache".to_owned());
        let notes = notes(&settings);
        assert_eq!(notes.len(), 2);
        assert!(
            notes[0].starts_with("policy.gemini.rpm_limit ") && notes[1].starts_with("redis "),
            "{notes:?}"
        );
    }
}
