//! The proxies of the command line and the environment.

use std::ffi::OsString;

use crate::settings::ProxyChoice;

/// The proxies of `--proxy`, or of the variables that curl(1) reads.
pub(super) fn choose(
    option: Option<String>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> ProxyChoice {
    let variable = |names: &[&str]| {
        let mut values = names
            .iter()
            .filter_map(|name| env(name)?.into_string().ok());
        values.find(|value| !value.is_empty())
    };
    let exceptions = variable(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    if let Some(option) = option {
        let proxy = (option != "none").then_some(option);
        return ProxyChoice {
            http: proxy.clone(),
            https: proxy,
            exceptions,
        };
    }
    let of_environment = |names: &[&str]| {
        let value = variable(names).or_else(|| variable(&["all_proxy", "ALL_PROXY"]))?;
        Some(complete(&value))
    };
    ProxyChoice {
        // A web server sets HTTP_PROXY for its programs to a header of the request.
        http: of_environment(&["http_proxy"]),
        https: of_environment(&["https_proxy", "HTTPS_PROXY"]),
        exceptions,
    }
}

/// A proxy of the environment with the scheme and the port that curl(1) adds.
fn complete(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit(['@', ']']).next().unwrap_or_default();
    match host.contains(':') || scheme != "http" {
        true => format!("{scheme}://{authority}"),
        false => format!("{scheme}://{authority}:1080"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Invocation;
    use super::*;

    #[test]
    fn scheme_and_port_are_added() {
        for (text, proxy) in [
            ("p", "http://p:1080"),
            ("p:3128/", "http://p:3128"),
            ("http://me:pw@p", "http://me:pw@p:1080"),
            ("http://me:pw@p:1/", "http://me:pw@p:1"),
            ("[::1]", "http://[::1]:1080"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("socks5://p", "socks5://p"),
        ] {
            assert_eq!(complete(text), proxy);
        }
    }

    #[test]
    fn proxies_are_those_of_the_option_or_of_the_environment() {
        let choice = |line: &str, variables: &[(&str, &str)]| {
            let env = |name: &str| {
                let mut found = variables.iter().filter(|(known, _)| *known == name);
                found.next().map(|(_, value)| OsString::from(value))
            };
            match super::super::parse(line.split_whitespace().map(OsString::from), &env).unwrap() {
                Invocation::Run(options) => options.proxy,
                other => panic!("{other:?}"),
            }
        };
        let of = |http: Option<&str>, https: Option<&str>, exceptions: &str| ProxyChoice {
            http: http.map(str::to_owned),
            https: https.map(str::to_owned),
            exceptions: exceptions.to_owned(),
        };
        let variables = [
            ("http_proxy", ""),
            ("HTTP_PROXY", "http://evil:1"),
            ("HTTPS_PROXY", "secure:1"),
            ("all_proxy", "http://all:1"),
            ("no_proxy", "a,b"),
        ];
        assert_eq!(
            choice("http://a", &variables),
            of(Some("http://all:1"), Some("http://secure:1"), "a,b")
        );
        let option = choice("--proxy http://o:1 http://a", &variables);
        assert_eq!(option, of(Some("http://o:1"), Some("http://o:1"), "a,b"));
        assert_eq!(
            choice("--proxy none http://a", &variables),
            of(None, None, "a,b")
        );
        assert_eq!(choice("http://a", &[]), ProxyChoice::default());
    }
}
