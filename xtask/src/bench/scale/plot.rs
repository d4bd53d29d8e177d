//! The pictures: what each viewer gets, and how late, against how many watch.
//!
//! [`PICTURES`] each have two panels over the same viewers, on a logarithmic axis. Lines are named where they end; hollow points are
//! simulated. The font comes with the program, so that a picture looks the same everywhere.

use super::Mode;
use super::points::{Point, Setup};
use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::{Path, PathBuf};

/// Pixels.
const SIZE: (u32, u32) = (1440, 620);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(150, 154, 160);
/// Names of lines stand at least so far apart, in shares of the panel's height.
const APART: f64 = 0.056;

/// Room for them, beside that of the points.
const NAMES: f64 = 0.42;

type Failure = Box<dyn std::error::Error>;
type Area<'a, B> = DrawingArea<B, Shift>;

/// One picture.
pub(super) struct Picture {
    /// The file's name, without ending.
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    panels: [Panel; 2],
}

/// Half of a picture.
struct Panel {
    title: &'static str,
    figure: Figure,
    modes: &'static [Mode],
    /// What a server alone leaves each viewer.
    has_theory: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Figure {
    Rate,
    Delay,
    OnTime,
}

pub(super) const PICTURES: [Picture; 2] = [
    Picture {
        name: "scale-rate",
        what: "Rate received per viewer against the number of viewers: servers fall, the swarm and the hybrid hold",
        panels: [
            Panel {
                title: "Servers and hybrid: kbit/s received per viewer",
                figure: Figure::Rate,
                modes: &[Mode::Nginx, Mode::ServerOnly, Mode::Hybrid],
                has_theory: true,
            },
            Panel {
                title: "Swarm and hybrid: kbit/s received per viewer",
                figure: Figure::Rate,
                modes: &[Mode::SwarmOnly, Mode::Hybrid],
                has_theory: true,
            },
        ],
    },
    Picture {
        name: "scale-delay",
        what: "Delay and continuity against the number of viewers",
        panels: [
            Panel {
                title: "Delay p95, ms (nginx: of segments)",
                figure: Figure::Delay,
                modes: &Mode::ALL,
                has_theory: false,
            },
            Panel {
                title: "On time, % of what was due",
                figure: Figure::OnTime,
                modes: &Mode::ALL,
                has_theory: false,
            },
        ],
    },
];

/// A line to be drawn.
struct Curve {
    name: String,
    color: RGBColor,
    is_theory: bool,
    /// Drawn last and thin, so that what it lies on shows beside it.
    is_slender: bool,
    /// Viewers, where the figure stands on the axis, and whether it is simulated.
    points: Vec<(f64, f64, bool)>,
}

impl Mode {
    fn color(self) -> RGBColor {
        match self {
            Self::Nginx => RGBColor(200, 60, 50),
            Self::ServerOnly => RGBColor(210, 130, 30),
            Self::SwarmOnly => RGBColor(90, 150, 70),
            Self::Hybrid => RGBColor(20, 110, 180),
        }
    }
}

impl Figure {
    fn of(self, point: &Point) -> Option<f64> {
        match self {
            Self::Rate => point.median("received_bps/mean").map(|bps| bps / 1e3),
            Self::Delay => point.p95_ms(),
            Self::OnTime => point.median("on_time_ratio").map(|ratio| ratio * 100.0),
        }
    }

    /// Where a figure stands on the axis: delays on a logarithmic one.
    fn place(self, value: f64) -> f64 {
        if self == Self::Delay { value.max(1.0).log10() } else { value }
    }

    /// What the axis says there.
    fn label(self, place: f64) -> String {
        match self {
            Self::Delay if place.fract().abs() > 1e-6 => String::new(),
            Self::Delay => thousands(10_f64.powf(place).round()),
            Self::Rate | Self::OnTime => thousands(place),
        }
    }
}

/// Draws every picture into `folder`, in each of these formats; says which files.
pub(super) fn write(
    setup: &Setup,
    points: &[Point],
    folder: &Path,
    endings: &[&str],
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    register_font(FONT, FontStyle::Normal, notosans::REGULAR_TTF)
        .map_err(|_| anyhow!("the plots' font is unreadable"))?;
    let mut files = Vec::new();
    for picture in &PICTURES {
        for ending in endings {
            let file = folder.join(format!("{}.{ending}", picture.name));
            let drawn = if *ending == "svg" {
                draw(picture, setup, points, &SVGBackend::new(&file, SIZE).into_drawing_area())
            } else {
                draw(picture, setup, points, &BitMapBackend::new(&file, SIZE).into_drawing_area())
            };
            drawn.map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))?;
            files.push(file);
        }
    }
    Ok(files)
}

fn draw<B: DrawingBackend>(
    picture: &Picture,
    setup: &Setup,
    points: &[Point],
    root: &Area<'_, B>,
) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    root.fill(&WHITE)?;
    let title = format!(
        "Stream {} Mbit/s, origin's uplink {} Mbit/s, each viewer's {} Mbit/s; hollow points: simulated",
        setup.rate_bps as f64 / 1e6,
        setup.cap_bps as f64 / 1e6,
        setup.viewer_bps as f64 / 1e6
    );
    let root = root.titled(&title, (FONT, 21).into_font().color(&INK))?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    for (panel, area) in picture.panels.iter().zip([left, right]) {
        chart(panel, setup, points, &area)?;
    }
    root.present()?;
    Ok(())
}

/// The panel's lines. Every panel has the same viewers below it.
fn curves(panel: &Panel, setup: &Setup, points: &[Point], last: f64) -> Vec<Curve> {
    let mut curves = Vec::new();
    if panel.has_theory {
        const STEPS: u32 = 200;
        let at = |step: u32| last.powf(f64::from(step) / f64::from(STEPS));
        let points = (0..=STEPS).map(at).map(|n| (n, setup.server_bps(n) / 1e3, true)).collect();
        curves.push(Curve {
            name: "a server, in theory".to_owned(),
            color: FAINT,
            is_theory: true,
            is_slender: false,
            points,
        });
    }
    for mode in panel.modes {
        let of_mode = || points.iter().filter(|point| point.mode == *mode && !point.runs.is_empty());
        let points: Vec<(f64, f64, bool)> = of_mode()
            .filter_map(|point| Some((point.viewers as f64, panel.figure.of(point)?, point.is_simulated)))
            .map(|(viewers, value, is_simulated)| (viewers, panel.figure.place(value), is_simulated))
            .collect();
        // Only a delay can be missing: where too little came for a percentile.
        let has_more = of_mode().next_back().is_some_and(|point| panel.figure.of(point).is_none());
        let name = format!("{}{}", mode.label(), if has_more { "; then > 5 % too late" } else { "" });
        curves.push(Curve {
            name,
            color: mode.color(),
            is_theory: false,
            is_slender: *mode == Mode::Hybrid,
            points,
        });
    }
    curves.retain(|curve| !curve.points.is_empty());
    curves
}

fn chart<B: DrawingBackend>(
    panel: &Panel,
    setup: &Setup,
    points: &[Point],
    area: &Area<'_, B>,
) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    let last = points.iter().map(|point| point.viewers as f64).fold(10.0, f64::max);
    let curves = curves(panel, setup, points, last);
    let most = curves.iter().flat_map(|curve| &curve.points).map(|(_, place, _)| *place).fold(0.0, f64::max);
    let top = match panel.figure {
        Figure::Rate => setup.rate_bps as f64 / 1e3 * 1.12,
        Figure::Delay => most.ceil().max(3.0) * 1.02,
        Figure::OnTime => 108.0,
    };
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(panel.title, (FONT, 22).into_font().color(&INK))
        .margin(12)
        .margin_right(20)
        .x_label_area_size(64)
        .y_label_area_size(66);
    // The names of lines stand right of the last viewers.
    let right = last.powf(1.0 + NAMES);
    let mut chart = builder.build_cartesian_2d((1.0..right).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("viewers")
        .y_labels(if panel.figure == Figure::Delay { 5 } else { 7 })
        .label_style((FONT, 18))
        .axis_desc_style((FONT, 19))
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|viewers| {
            if *viewers > last * 4.0 { String::new() } else { thousands(*viewers) }
        })
        .y_label_formatter(&|place| panel.figure.label(*place))
        .draw()?;
    for curve in &curves {
        let line = curve.points.iter().map(|(viewers, value, _)| (*viewers, *value));
        if curve.is_theory {
            chart.draw_series(DashedLineSeries::new(line, 7, 5, curve.color.stroke_width(2)))?;
            continue;
        }
        let (width, radius) = if curve.is_slender { (2, 4) } else { (4, 6) };
        chart.draw_series(LineSeries::new(line, curve.color.stroke_width(width)))?;
        for (viewers, value, is_simulated) in &curve.points {
            let fill = if *is_simulated { WHITE.filled() } else { curve.color.filled() };
            chart.draw_series([Circle::new((*viewers, *value), radius, fill)])?;
            chart.draw_series([Circle::new((*viewers, *value), radius, curve.color.stroke_width(2))])?;
        }
    }
    let ends: Vec<f64> = curves.iter().map(|curve| curve.points[curve.points.len() - 1].1).collect();
    for (curve, at) in curves.iter().zip(spread(&ends, top * APART, top)) {
        let from = curve.points[curve.points.len() - 1].0;
        let style = (FONT, 19).into_font().color(&curve.color);
        chart.draw_series([Text::new(
            curve.name.clone(),
            (from * last.powf(0.025), at + top * 0.025),
            style,
        )])?;
    }
    Ok(())
}

/// Where names stand: at their values, moved so that none covers another and all stay within 0 to `top`.
fn spread(values: &[f64], apart: f64, top: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut places = values.to_vec();
    let mut least = 0.0;
    for index in &order {
        places[*index] = places[*index].max(least);
        least = places[*index] + apart;
    }
    let mut most = top - apart / 2.0;
    for index in order.iter().rev() {
        places[*index] = places[*index].min(most);
        most = places[*index] - apart;
    }
    places
}

/// `10,000`, `0.5`.
fn thousands(value: f64) -> String {
    if value.fract() != 0.0 && value.abs() < 10.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_cover_each_other_and_keep_their_order() {
        let places = spread(&[100.0, 99.0, 50.0, 0.0], 5.0, 105.0);
        assert_eq!(places[2..], [50.0, 0.0]);
        assert!(places[0] - places[1] >= 5.0 && places[0] <= 102.5, "{places:?}");
        assert_eq!(spread(&[], 5.0, 100.0), [0.0; 0]);
    }

    #[test]
    fn figures_are_written_as_people_do() {
        assert_eq!(
            [1.0, 999.0, 1000.0, 10_000.0, 0.5].map(thousands),
            ["1", "999", "1,000", "10,000", "0.5"]
        );
    }

    #[test]
    fn every_picture_is_drawn_in_both_formats() {
        let setup =
            Setup { rate_bps: 1_000_000, cap_bps: 20_000_000, viewer_bps: 1_500_000, commit: String::new() };
        let run = super::super::Run {
            figures: [("received_bps/mean", 9e5), ("on_time_ratio", 1.0), ("chunk_delay_ms/p95", 90.0)]
                .into_iter()
                .collect(),
            ..Default::default()
        };
        let points: Vec<Point> = [(1, false), (60, false), (1000, true)]
            .map(|(viewers, is_simulated)| Point {
                mode: Mode::Hybrid,
                viewers,
                runs: vec![run.clone()],
                is_simulated,
            })
            .into();
        let folder = std::env::temp_dir().join(format!("caudal-xtask-plots-{}", std::process::id()));
        let files = write(&setup, &points, &folder, &["svg", "png"]).unwrap();
        assert_eq!(files.len(), 4);
        let svg = std::fs::read_to_string(&files[0]).unwrap();
        assert!(svg.contains("hybrid") && svg.contains("in theory") && svg.contains("viewers"));
        assert!(std::fs::read(&files[1]).unwrap().starts_with(b"\x89PNG"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
