#include "experiments/report/page.h"

#include <sys/stat.h>

#include <ctime>

#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "experiments/report/sections.h"
#include "experiments/report/style.h"
#include "runtime/error.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;
using runtime::Json;

// Scripts and anything from elsewhere are forbidden even where a string got past escape().
constexpr const char* kPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
// One pattern for all drawings of the page.
constexpr const char* kDefinitions =
    "<svg class=\"defs\" aria-hidden=\"true\"><defs><pattern id=\"hatch\" width=\"5\" height=\"5\" "
    "patternUnits=\"userSpaceOnUse\" "
    "patternTransform=\"rotate(45)\"><line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"5\" "
    "class=\"hatch\"/></pattern></defs></svg>\n";

std::string text_at(const Json& json, const std::string& key) {
  return json.is_object() && json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
}

// When results.json was written last, in UTC.
std::string written(const std::filesystem::path& folder) {
  struct stat about {};
  if (::stat((folder / "results.json").c_str(), &about) != 0) return "";
  std::tm parts{};
  if (::gmtime_r(&about.st_mtime, &parts) == nullptr) return "";
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts);
  return text;
}

std::string made_line(const char* what, const Json& made_by, const std::string& when) {
  std::string line = what;
  if (!when.empty()) line += " " + escape(when);
  if (const std::string command = text_at(made_by, "command"); !command.empty())
    line += cat(" by <code>", escape(command), "</code>");
  if (const std::string version = text_at(made_by, "version"); !version.empty())
    line += cat(", version ", escape(version));
  if (const std::string commit = text_at(made_by, "commit"); !commit.empty())
    line += cat(", commit <code>", escape(commit), "</code>");
  return line + ".";
}

std::string arms_line(const Material& material) {
  const StudyResults& results = material.results;
  std::vector<std::string> names;
  for (const Setting& setting : material.settings) {
    names.push_back(
        cat(escape(setting.label), setting.arms.size() > 1 ? cat(" (", setting.arms.size(), " seeds)") : ""));
  }
  return cat("<p class=\"made\">", results.arms.size(),
             results.arms.size() == 1 ? " arm: " : " arms: ", runtime::join(names), ". ",
             made_line("Results", results.made_by, written(results.folder)), "</p>\n");
}

std::string links_to(const std::vector<Section>& sections) {
  std::string links;
  for (const Section& section : sections)
    links += cat("<li><a href=\"#", section.id, "\">", escape(section.title), "</a></li>");
  return cat("<nav aria-label=\"Sections\"><ul>", links, "</ul></nav>\n");
}

std::string header(const Material& material, const std::string& title, const std::vector<Section>& sections) {
  return cat("<header>\n<p class=\"kicker\">laptopdiff report</p>\n<h1>", escape(title),
             "</h1>\n<p>A diffusion U-Net was made smaller by removing whole layers, and retrained against the "
             "original, its <em>teacher</em>. This page shows "
             "which layers went, and what was lost.</p>\n",
             summary_text(material), summary_cards(material), arms_line(material), links_to(sections), "</header>\n");
}

std::string document(const std::string& title, const std::string& header, const std::vector<Section>& sections,
                     const Json& made_by) {
  std::string page =
      cat("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
          "content=\"width=device-width, initial-scale=1\">\n",
          "<meta http-equiv=\"Content-Security-Policy\" content=\"", kPolicy, "\">\n<title>", escape(title),
          "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n", kDefinitions);
  page += header;
  page += "<main>\n";
  for (const Section& section : sections) {
    page += cat("<section aria-labelledby=\"", section.id, "\">\n<h2 id=\"", section.id, "\">", escape(section.title),
                "</h2>\n", section.body, "</section>\n");
  }
  page += cat("</main>\n<footer>", made_line("This page was made", made_by, ""),
              " It is one file, without scripts, and loads nothing.</footer>\n</body>\n</html>\n");
  return page;
}

std::vector<CurveFile> read_curves(const std::vector<std::filesystem::path>& paths) {
  std::vector<CurveFile> curves;
  for (const std::filesystem::path& path : paths) curves.push_back(read_curve(path));
  return curves;
}

}  // namespace

std::string make_page(const std::filesystem::path& folder, const Json& made_by,
                      const std::vector<std::filesystem::path>& curves) {
  const StudyResults results = read_study_results(folder);
  Material material{results, settings_of(results), std::nullopt, read_curves(curves)};
  material.pruning = pruning_of(results, material.settings);
  const std::vector<Section> sections = {
      quality_section(material), images_section(material),  importance_section(material), map_section(material),
      audit_section(material),   balance_section(material), curves_section(material),     making_section(material)};
  const std::string title = results.name.empty() ? "Study of a pruned U-Net" : results.name;
  return document(title, header(material, title, sections), sections, made_by);
}

std::string make_curves_page(const std::vector<std::filesystem::path>& curves, const Json& made_by) {
  const std::string title = "Curves of loss over size";
  const std::string header =
      cat("<header>\n<p class=\"kicker\">laptopdiff report</p>\n<h1>", title,
          "</h1>\n<p>What a diffusion U-Net is predicted to lose by the removal of whole layers, for every size it "
          "could have.</p>\n</header>\n");
  return document(title, header, {{"curves", "Curves", predicted_curves(read_curves(curves))}}, made_by);
}

}  // namespace laptopdiff::report
