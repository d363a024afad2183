//! Bar charts as SVG, readable on light and dark ground.

use std::fmt::Write as _;

/// Horizontal bars, in groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plot {
    pub(crate) title: String,
    /// What a bar's length is in.
    pub(crate) unit: &'static str,
    /// Names what the bars of every group are, in their order.
    pub(crate) series: Vec<String>,
    pub(crate) groups: Vec<Group>,
}

/// One of what is compared: a bar for each series, from nothing to `median`, with a line from `min` to `max`.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Where bars begin, and how long the longest is. Pixels, as all here.
const LEFT: f64 = 190.0;
const LENGTH: f64 = 430.0;
const WIDTH: f64 = 740.0;
const BAR: f64 = 13.0;
const GAP: f64 = 10.0;
const TOP: f64 = 58.0;
/// Told apart by everybody, on white and on black (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"];

impl Plot {
    /// The picture. Text takes the colour that the reader's scheme asks for.
    pub(crate) fn to_svg(&self) -> String {
        let bars: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let height = TOP + bars as f64 * BAR + self.groups.len() as f64 * GAP + 8.0;
        let longest = self.groups.iter().flat_map(|group| &group.bars).map(|bar| bar.max);
        let scale = LENGTH / longest.fold(f64::MIN_POSITIVE, f64::max);
        let mut svg = String::new();
        line(
            &mut svg,
            &format!(r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">"#),
        );
        line(
            &mut svg,
            "<style>text{font:12px sans-serif;fill:#222}.t{font-weight:bold}.s{stroke:#222;stroke-width:1}",
        );
        line(&mut svg, "@media(prefers-color-scheme:dark){text{fill:#ddd}.s{stroke:#ddd}}</style>");
        line(&mut svg, &text(8.0, 18.0, "t", &format!("{}, {}", self.title, self.unit)));
        self.legend(&mut svg);
        let mut y = TOP;
        for group in &self.groups {
            line(&mut svg, &text(8.0, y + BAR - 2.0, "n", &group.name));
            for (at, bar) in group.bars.iter().enumerate() {
                let colour = COLOURS[at % COLOURS.len()];
                let (long, middle) = (bar.median * scale, y + BAR / 2.0);
                let (from, until) = (LEFT + bar.min * scale, LEFT + bar.max * scale);
                line(
                    &mut svg,
                    &format!(
                        r#"<rect x="{LEFT}" y="{y:.1}" width="{long:.1}" height="{:.1}" fill="{colour}"/>"#,
                        BAR - 2.0
                    ),
                );
                line(
                    &mut svg,
                    &format!(r#"<path class="s" d="M{from:.1} {middle:.1}H{until:.1}" fill="none"/>"#),
                );
                line(&mut svg, &text(until + 5.0, y + BAR - 2.0, "n", &figure(bar.median)));
                y += BAR;
            }
            y += GAP;
        }
        line(&mut svg, "</svg>");
        svg
    }

    fn legend(&self, svg: &mut String) {
        let mut x = 8.0;
        for (at, name) in self.series.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            line(svg, &format!(r#"<rect x="{x:.0}" y="31" width="10" height="10" fill="{colour}"/>"#));
            line(svg, &text(x + 14.0, 40.0, "n", name));
            x += 30.0 + 6.6 * name.chars().count() as f64;
        }
    }
}

fn line(svg: &mut String, text: &str) {
    svg.push_str(text);
    svg.push('\n');
}

fn text(x: f64, y: f64, class: &str, text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            other => escaped.push(other),
        }
    }
    format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{escaped}</text>"#)
}

/// Below a millionth nothing is told apart.
const DECIMALS_MAX: f64 = 6.0;

/// A figure as people read it: three digits that say something, thousands apart.
pub(crate) fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size => (2.0 - size.log10().floor()).min(DECIMALS_MAX) as usize,
    };
    let plain = format!("{value:.decimals$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut apart = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && digit.is_ascii_digit() && (whole.len() - at) % 3 == 0 && !apart.ends_with('-') {
            apart.push(',');
        }
        apart.push(digit);
    }
    let _ = write!(apart, "{rest}");
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_thousands_apart() {
        let shown: Vec<String> =
            [0.0, 0.000_123_4, 0.1234, 5.678, 56.78, 567.8, 1_234.5, 1_234_567.0, -1_234.0]
                .into_iter()
                .map(figure)
                .collect();
        assert_eq!(shown, ["0", "0.000123", "0.123", "5.68", "56.8", "568", "1,234", "1,234,567", "-1,234"]);
    }

    #[test]
    fn names_cannot_leave_their_text() {
        let bar = Bar { median: 1.0, min: 0.5, max: 2.0 };
        let groups = vec![Group { name: "a<b & c".to_owned(), bars: vec![bar] }];
        let plot = Plot { title: "title".to_owned(), unit: "1/s", series: vec!["ours".to_owned()], groups };
        let svg = plot.to_svg();
        assert!(svg.contains("a&lt;b &amp; c") && svg.ends_with("</svg>\n"));
        assert!(svg.contains(r#"width="215.0""#), "half of the longest");
    }
}
