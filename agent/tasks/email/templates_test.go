package email

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// folder makes a folder of files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func data(t testing.TB, text string) map[string]any {
	t.Helper()
	d, err := Data([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var welcome = map[string]string{
	"welcome.subject.txt": "Welcome, {{.user.name}}\n",
	"welcome.txt":         "Hello {{.user.name}},\nyour number is {{.user.id}}.\n",
	"welcome.html":        `<p>Hello {{.user.name}} <a href="https://example.com/?u={{.user.name}}">here</a>{{/* nothing */}}`,
	"reset.subject.txt":   "Reset",
	"reset.txt":           "{{range .codes}}{{.}} {{else}}none{{end}}",
}

func TestFolderOfTemplates(t *testing.T) {
	templates, err := Load(folder(t, welcome))
	if err != nil {
		t.Fatal(err)
	}

	if names := templates.Names(); !slices.Equal(names, []string{"reset", "welcome"}) {
		t.Errorf("names %q", names)
	}
	got, err := templates.Render("welcome", data(t, `{"user": {"name": "Ada & <Co>", "id": 12345678}}`))
	want := Rendered{
		Subject: "Welcome, Ada & <Co>",
		Text:    "Hello Ada & <Co>,\nyour number is 12345678.\n",
		HTML:    `<p>Hello Ada &amp; &lt;Co&gt; <a href="https://example.com/?u=Ada%20%26%20%3cCo%3e">here</a>`,
	}
	if err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	got, err = templates.Render("reset", data(t, `{"codes": [1, 2.5, "x"]}`))
	if want := (Rendered{Subject: "Reset", Text: "1 2.5 x "}); err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestFolderAsKubernetesMountsIt(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "..2026_03_14")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.subject.txt", "a.txt"} {
		if err := os.WriteFile(filepath.Join(real, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("..2026_03_14", filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}

	templates, err := Load(dir)

	if err != nil || !slices.Equal(templates.Names(), []string{"a"}) {
		t.Errorf("%v, want a template a", err)
	}
}

func TestFoldersThatAreRefused(t *testing.T) {
	for _, v := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no subject", map[string]string{"a.txt": "x"}, "/a: it has no subject"},
		{"no body", map[string]string{"a.subject.txt": "x"}, "/a: it has neither text nor html"},
		{"another file", map[string]string{"a.htm": "x"}, "/a.htm: it is no template: files are called NAME.subject.txt"},
		{"no name", map[string]string{"subject.md": "x"}, "it is no template"},
		{"an empty file", map[string]string{"a.subject.txt": "x", "a.txt": "\n"}, "/a: a.txt is empty"},
		{"bad syntax", map[string]string{"a.subject.txt": "x", "a.txt": "one\ntwo {{.x"}, `/a: a.txt, line 2: unclosed action`},
		{"an unknown function", map[string]string{"a.subject.txt": "x", "a.html": "\n\n{{env `HOME`}}"}, `/a: a.html, line 3: function "env" not defined`},
		{"what can't be escaped", map[string]string{"a.subject.txt": "x", "a.html": "\n<a href=\"{{if .x}}\">{{end}}"}, "/a: a.html, line 2: {{if}} branches end in different contexts"},
		{"a template that isn't there", map[string]string{"a.subject.txt": "x", "a.html": "{{template \"b\"}}"}, `/a: a.html, line 1: no such template "b"`},
		{"too long", map[string]string{"a.subject.txt": "x", "a.txt": strings.Repeat("x", MaxTemplate+1)}, "/a.txt: it has more than 262144 bytes"},
		{"not UTF-8", map[string]string{"a.subject.txt": "x", "a.txt": "\xff"}, "/a: a.txt is not UTF-8"},
	} {
		t.Run(v.name, func(t *testing.T) {
			dir := folder(t, v.files)

			_, err := Load(dir)

			if err == nil || !strings.Contains(err.Error(), v.want) || !strings.Contains(err.Error(), "e-mail template "+dir) {
				t.Errorf("%v, want it to say %q", err, v.want)
			}
		})
	}
}

func TestFolderThatIsNotThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")

	_, err := Load(dir)

	if want := dir + ": it can't be read: no such file or directory"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestUnknownTemplate(t *testing.T) {
	templates, err := Load(folder(t, welcome))
	if err != nil {
		t.Fatal(err)
	}

	_, err = templates.Render("wellcome", nil)
	if want := `no e-mail template "wellcome"; there are reset, welcome`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	_, err = new(Templates).Render("welcome", nil)
	if want := "no folder of templates is configured"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("without a folder: %v, want %s", err, want)
	}
}

func TestInlineTemplates(t *testing.T) {
	template, err := Inline("Order {{.id}}", "{{.total}} EUR", "")
	if err != nil {
		t.Fatal(err)
	}

	got, err := template.Render(data(t, `{"id": 12345678901, "total": 12.5}`))

	if want := (Rendered{Subject: "Order 12345678901", Text: "12.5 EUR"}); err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestInlineTemplatesThatAreRefused(t *testing.T) {
	for _, v := range []struct{ subject, text, html, want string }{
		{"", "x", "", "it has no subject"},
		{"x", "", "", "it has neither text nor html"},
		{"{{", "x", "", "subject, line 1: "},
		{"x", "\n{{.a", "", "text, line 2: "},
		{"x", "", "\n\n{{end}}", "html, line 3: "},
	} {
		if _, err := Inline(v.subject, v.text, v.html); err == nil || !strings.HasPrefix(err.Error(), v.want) {
			t.Errorf("%q %q %q: %v, want %s", v.subject, v.text, v.html, err, v.want)
		}
	}
}

func TestDataThatIsMissing(t *testing.T) {
	templates, err := Load(folder(t, welcome))
	if err != nil {
		t.Fatal(err)
	}

	_, err = templates.Render("welcome", data(t, `{"user": {"name": "Ada"}}`))

	for _, want := range []string{"welcome.txt, line 2: ", `map has no entry for key "id"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to say %s", err, want)
		}
	}
}

func TestDataIsAnObject(t *testing.T) {
	for _, v := range []struct{ text, want string }{
		{`[1]`, "must be a JSON object, and is a JSON array"},
		{`"x"`, "must be a JSON object, and is a JSON string"},
		{`null`, "and is null"},
		{`{`, "must be a JSON object: unexpected EOF"},
		{`{} {}`, "goes on behind it"},
		{`{"a": ` + strings.Repeat("[", 101) + strings.Repeat("]", 101) + `}`, "nested more than 100 deep"},
	} {
		if _, err := Data([]byte(v.text)); err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%s: %v, want it to say %s", v.text, err, v.want)
		}
	}
	if d, err := Data(nil); err != nil || d == nil || len(d) != 0 {
		t.Errorf("of nothing: %v, %v", d, err)
	}
}

func TestNumbersArePrintedAsTheyAreWritten(t *testing.T) {
	template, err := Inline("x", "{{.n}}", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, number := range []string{"0", "-7", "12345678", "9223372036854775807", "18446744073709551616123", "0.1", "1e400"} {
		want := number
		if number == "18446744073709551616123" {
			want = "1.8446744073709552e+22"
		}

		got, err := template.Render(data(t, `{"n": `+number+`}`))

		if err != nil || got.Text != want {
			t.Errorf("%s is printed as %s, %v", number, got.Text, err)
		}
	}
}

func TestTemplatesRenderConcurrently(t *testing.T) {
	templates, err := Load(folder(t, welcome))
	if err != nil {
		t.Fatal(err)
	}
	d := data(t, `{"user": {"name": "Ada", "id": 1}}`)
	var rendering sync.WaitGroup
	for range 8 {
		rendering.Go(func() {
			for range 50 {
				if r, err := templates.Render("welcome", d); err != nil || r.Subject != "Welcome, Ada" {
					t.Errorf("%q, %v", r, err)
				}
			}
		})
	}
	rendering.Wait()
}
