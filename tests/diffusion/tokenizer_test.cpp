#include "diffusion/tokenizer.h"

#include <torch/types.h>

#include "diffusion/unicode.h"
#include "tests/diffusion/small_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using laptopdiff::test::thrown_by;
using runtime::ExitCode;
using runtime::Json;
using test::put_bytes;
using test::SmallTokenizer;
using test::TemporaryFolder;

using Ids = std::vector<std::int64_t>;

TEST_CASE("words are joined pair by pair, lowest rank first") {
  const TemporaryFolder folder;
  SmallTokenizer().write(folder.path());
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  const std::int64_t cat = 513, the = 516, at = 514, a_end = *tokenizer.id_of("a</w>"), oo = 517;
  CHECK(tokenizer.ids("cat") == Ids{cat});
  CHECK(tokenizer.ids("The CAT") == Ids{the, cat});
  CHECK(tokenizer.ids("at a") == Ids{at, a_end});
  SUBCASE("a symbol joins once, from the left") {
    CHECK(tokenizer.ids("ooox") == Ids{oo, *tokenizer.id_of("o"), *tokenizer.id_of("x</w>")});
  }
  SUBCASE("white space of any kind only separates") {
    CHECK(tokenizer.ids(" \tthe\n\n  cat ") == Ids{the, cat});
    CHECK(tokenizer.ids("") == Ids{});
    CHECK(tokenizer.ids("  ") == Ids{});
  }
  SUBCASE("numbers come one by one, other signs in runs, English endings apart") {
    CHECK(tokenizer.ids("12") == Ids{*tokenizer.id_of("1</w>"), *tokenizer.id_of("2</w>")});
    CHECK(tokenizer.ids("!?") == Ids{*tokenizer.id_of("!"), *tokenizer.id_of("?</w>")});
    CHECK(tokenizer.ids("cat's") == Ids{cat, *tokenizer.id_of("'"), *tokenizer.id_of("s</w>")});
    CHECK(tokenizer.ids("''s") == Ids{*tokenizer.id_of("'"), *tokenizer.id_of("'</w>"), *tokenizer.id_of("s</w>")});
  }
}

TEST_CASE("special tokens in the text are one id each") {
  const TemporaryFolder folder;
  const SmallTokenizer small;
  small.write(folder.path());
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  CHECK(tokenizer.ids("<|startoftext|>cat<|endoftext|>") == Ids{small.start, 513, small.end});
  SUBCASE("but not spelled in capitals: then they are three words") {
    CHECK(tokenizer.ids("<|ENDOFTEXT|>!").size() == 2 + 9 + 2 + 1);
    CHECK(tokenizer.ids("<|ENDOFTEXT|>!").back() == *tokenizer.id_of("!</w>"));
  }
}

TEST_CASE("a text is framed, cut and padded to the folder's length") {
  const TemporaryFolder folder;
  const SmallTokenizer small;
  const std::int64_t s = small.start, e = small.end, cat = 513;
  small.write(folder.path());
  SUBCASE("with the end token, as SD 1 does") {
    const Tokenizer tokenizer = Tokenizer::load(folder.path());
    CHECK(tokenizer.encode("cat cat") == Ids{s, cat, cat, e, e, e, e, e});
    CHECK(tokenizer.encode("cat", 0) == Ids{s, cat, e, 0, 0, 0, 0, 0});
    CHECK(tokenizer.encode("cat cat cat cat cat cat cat") == Ids{s, cat, cat, cat, cat, cat, cat, e});
    CHECK(tokenizer.max_length() == 8);
  }
  SUBCASE("with what special_tokens_map.json says, as SD 2 does; the pad is then special in texts too") {
    put_bytes(folder / "special_tokens_map.json", R"({"pad_token": "!"})");
    const Tokenizer tokenizer = Tokenizer::load(folder.path());
    const std::int64_t pad = *tokenizer.id_of("!");
    CHECK(tokenizer.pad_id() == pad);
    CHECK(tokenizer.encode("cat!") == Ids{s, cat, pad, e, pad, pad, pad, pad});
  }
  SUBCASE("77 where the folder names no length, or none worth the name") {
    const char* texts[] = {"{}", R"({"model_max_length": null})",
                           R"({"model_max_length": 1000000000000000019884624838656})"};
    for (const char* text : texts) {
      put_bytes(folder / "tokenizer_config.json", text);
      CHECK(Tokenizer::load(folder.path()).encode("cat").size() == 77);
    }
    std::filesystem::remove(folder / "tokenizer_config.json");
    CHECK(Tokenizer::load(folder.path()).max_length() == 77);
  }
}

TEST_CASE("tokenizer.json alone is the same tokenizer") {
  const TemporaryFolder folder;
  const SmallTokenizer small;
  Json json = small.tokenizer_json();
  SUBCASE("with merges as pairs") {}
  SUBCASE("with merges as texts") {
    for (auto& merge : json["model"]["merges"]) {
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
  }
  put_bytes(folder / "tokenizer.json", json.dump());
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  CHECK(tokenizer.ids("the cat") == Ids{516, 513});
  CHECK(tokenizer.pad_id() == small.end);
}

TEST_CASE("added tokens are taken whole, the longest first") {
  const TemporaryFolder folder;
  SmallTokenizer().write(folder.path());
  put_bytes(folder / "added_tokens.json", R"({"<cat>": 520, "<cat>2": 521})");
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  CHECK(tokenizer.ids("the<cat>2<CAT>") == Ids{516, 521, 520});
  CHECK(tokenizer.vocabulary_size() == 522);
}

TEST_CASE("clean-up follows Unicode" * doctest::skip(!has_unicode())) {
  CHECK(clean_text("CAFE\u0301") == "caf\u00e9");
  CHECK(clean_text("a \u00a0\u3000b") == "a b");
  CHECK(clean_text("\u0130") == "i\u0307");
  CHECK(clean_text("\u039f\u03a3") == "\u03bf\u03c3");  // no final sigma: letters are lowered one by one
  CHECK(character_at("\u00e9", 0).kind == CharClass::letter);
  CHECK(character_at("\u2460", 0).kind == CharClass::number);
  CHECK(character_at("\u0301", 0).kind == CharClass::other);
  CHECK(character_at("\u3000", 0).kind == CharClass::space);
}

TEST_CASE("text that is not UTF-8 is refused with its place" * doctest::skip(!has_unicode())) {
  const auto thrown = thrown_by([] { clean_text("ab\xff"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("not UTF-8"));
  CHECK(thrown.says("offset 2"));
}

TEST_CASE("without ICU only ASCII text is taken" * doctest::skip(has_unicode())) {
  CHECK(clean_text("A \n B") == "a b");
  const auto thrown = thrown_by([] { clean_text("caf\u00e9"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("no ICU"));
}

TEST_CASE("broken tokenizer folders are refused") {
  const TemporaryFolder folder;
  const SmallTokenizer small;
  small.write(folder.path());
  Json json = small.tokenizer_json();
  std::string expected;
  SUBCASE("nothing there") {
    std::filesystem::remove(folder / "merges.txt");
    expected = "expected tokenizer.json, or vocab.json with merges.txt";
  }
  SUBCASE("a merge of three") {
    put_bytes(folder / "merges.txt", "#version: 0.2\nc a t\n");
    expected = "merges.txt:2: expected two tokens";
  }
  SUBCASE("a merge outside the vocabulary") {
    put_bytes(folder / "merges.txt", "q z\n");
    expected = "needs the token `qz`";
  }
  SUBCASE("an id that is no id") {
    put_bytes(folder / "vocab.json", R"({"a": -1})");
    expected = "-1 is not a token id";
  }
  SUBCASE("a vocabulary that is a list") {
    put_bytes(folder / "vocab.json", "[]");
    expected = "expected an object of token -> id";
  }
  SUBCASE("a special token without an id") {
    put_bytes(folder / "tokenizer_config.json", R"({"pad_token": "<pad>"})");
    expected = "the vocabulary has no `<pad>`, which is the `pad_token`";
  }
  SUBCASE("a special token that is a number") {
    put_bytes(folder / "tokenizer_config.json", R"({"pad_token": 3})");
    expected = "`pad_token`: expected a text";
  }
  SUBCASE("no room for the frame") {
    put_bytes(folder / "tokenizer_config.json", R"({"model_max_length": 1})");
    expected = "expected a number of at least 2";
  }
  SUBCASE("settings that are no object") {
    put_bytes(folder / "tokenizer_config.json", "[]");
    expected = "expected an object";
  }
  SUBCASE("added tokens with rules of their own") {
    put_bytes(folder / "tokenizer_config.json",
              R"({"added_tokens_decoder": {"520": {"content": "<x>", "lstrip": true}}})");
    expected = "`lstrip` is not supported";
  }
  SUBCASE("an added token's flag of the wrong type") {
    put_bytes(folder / "tokenizer_config.json",
              R"({"added_tokens_decoder": {"520": {"content": "<x>", "normalized": 3}}})");
    expected = "`normalized`";
  }
  SUBCASE("an added token without content") {
    put_bytes(folder / "tokenizer_config.json", R"({"added_tokens_decoder": {"520": {}}})");
    expected = "expected an object with a `content` text";
  }
  SUBCASE("an added token whose id is a word") {
    put_bytes(folder / "tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "<x>"}}})");
    expected = "expected a token id";
  }
  SUBCASE("tokenizer.json of another kind") {
    json["model"]["type"] = "Unigram";
    put_bytes(folder / "tokenizer.json", json.dump());
    expected = "expected a byte-pair model";
  }
  SUBCASE("tokenizer.json without word ends") {
    json["model"]["end_of_word_suffix"] = nullptr;
    put_bytes(folder / "tokenizer.json", json.dump());
    expected = "only CLIP tokenizers are supported";
  }
  SUBCASE("tokenizer.json with a strange merge") {
    json["model"]["merges"][0] = 3;
    put_bytes(folder / "tokenizer.json", json.dump());
    expected = "`model.merges`[0]: expected";
  }
  SUBCASE("tokenizer.json without merges") {
    json["model"].erase("merges");
    put_bytes(folder / "tokenizer.json", json.dump());
    expected = "`model.merges`: expected a list";
  }
  SUBCASE("tokenizer.json with an added token without id") {
    json["added_tokens"].push_back({{"content", "<x>"}});
    put_bytes(folder / "tokenizer.json", json.dump());
    expected = "a token has no `id`";
  }
  const auto thrown = thrown_by([&] { Tokenizer::load(folder.path()); });
  CAPTURE(thrown.message);
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says(expected));
}

}  // namespace
}  // namespace laptopdiff::diffusion
