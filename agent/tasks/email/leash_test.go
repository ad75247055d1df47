package email

import (
	"strings"
	"testing"
	"time"
)

func TestTemplatesAreBounded(t *testing.T) {
	list := `{"list": [` + strings.Repeat("1,", 999) + `1], "text": "` + strings.Repeat("x", 40_000) + `"}`
	nested := `{"next": ` + strings.Repeat(`{"next": `, 40) + `null` + strings.Repeat("}", 40) + `}`
	for _, v := range []struct{ name, text, data, want string }{
		{"a loop in a loop", "{{range $.list}}{{range $.list}}{{end}}{{end}}", list, "text: it takes more than 200000 steps"},
		{"a loop over a number", "{{range 1000000000000}}{{end}}", list, "more than 200000 steps"},
		{"a loop that goes on", "{{range 1000000000000}}{{continue}}{{end}}", list, "more than 200000 steps"},
		{"much output", "{{range $.list}}{{$.text}}{{end}}", list, "text: it makes more than 4194304 bytes"},
		{"text that doubles", `{{$x := $.text}}{{range $.list}}{{$x = print $x $x}}{{end}}`, list, "it takes at most 65536 bytes of text, and this is 80000"},
		{"text that doubles by printf", `{{$x := "ab"}}{{range $.list}}{{$x = printf "%s%s" $x $x}}{{end}}`, list, "at most 65536 bytes of text"},
		{"text that grows by escaping", `{{$x := "\\\\"}}{{range $.list}}{{$x = js $x}}{{end}}`, list, "at most 65536 bytes of text"},
		{"a wide verb", `{{printf "%1000d" 1}}`, list, "a width of more than three digits"},
		{"a wide precision", `{{printf "%.1000f" 1.0}}`, list, "a width of more than three digits"},
		{"a width from an argument", `{{printf "%*d" 1000000 1}}`, list, "takes a width from an argument"},
		{"a width from an argument by number", `{{printf "%[1]*d" 1000000 1}}`, list, "takes a width from an argument"},
		{"many verbs", `{{printf "` + strings.Repeat("%v", 33) + `" 1}}`, list, "the format has 33 verbs; at most 32"},
		{"an object as text", `{{print .}}`, list, "it takes text, numbers and booleans"},
	} {
		t.Run(v.name, func(t *testing.T) {
			template := unhurried(t, v.text, "")

			_, err := template.Render(data(t, v.data))

			if err == nil || !strings.Contains(err.Error(), v.want) {
				t.Errorf("%.200v, want it to say %s", err, v.want)
			}
		})
	}
	t.Run("html as well", func(t *testing.T) {
		template := unhurried(t, "", "<p>{{range $.list}}{{range $.list}}{{end}}{{end}}")

		_, err := template.Render(data(t, list))

		if want := "html: it takes more than 200000 steps"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	})
	t.Run("calls that double", func(t *testing.T) {
		text := ""
		for _, name := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
			next := string(name[0] + 1)
			if name == "z" {
				text += `{{define "z"}}{{end}}`
				continue
			}
			text += `{{define "` + name + `"}}{{template "` + next + `" .}}{{template "` + next + `" .}}{{end}}`
		}
		template := unhurried(t, text+`{{template "a" .}}`, "")

		_, err := template.Render(data(t, nested))

		if want := "more than 200000 steps"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	})
}

// unhurried is a template that has all the time it wants.
func unhurried(t *testing.T, text, html string) *Template {
	t.Helper()
	template, err := Inline("x", text, html)
	if err != nil {
		t.Fatal(err)
	}
	template.within = time.Hour
	return template
}

func TestTemplatesHaveNotAllTheTime(t *testing.T) {
	template := unhurried(t, "{{range 1000}}{{end}}", "")
	template.within = -time.Second

	_, err := template.Render(map[string]any{})

	if want := "text: it takes more than -1s"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestTemplatesThatCallThemselvesAreRefused(t *testing.T) {
	for _, v := range []struct{ text, want string }{
		{`{{define "a"}}{{if .next}}{{template "a" .next}}{{end}}{{end}}{{template "a" .}}`, `template "a" calls itself (a → a)`},
		{`{{define "a"}}{{template "b" .}}{{end}}{{define "b"}}{{with .x}}{{else}}{{template "a" .}}{{end}}{{end}}x`, `calls itself`},
		{`x{{range .}}{{template "text" .}}{{end}}`, `template "text" calls itself`},
	} {
		if _, err := Inline("x", v.text, ""); err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%s: %v, want %s", v.text, err, v.want)
		}
	}
}

func TestTemplatesWithTooManyCallsAreRefused(t *testing.T) {
	for _, text := range []string{
		strings.Repeat(`{{print "x"}}`, 1001),
		strings.Repeat(`{{if (print (print "x"))}}{{end}}`, 501),
	} {
		if _, err := Inline("x", text, ""); err == nil || !strings.Contains(err.Error(), "it calls functions at 100") {
			t.Errorf("%v, want a refusal", err)
		}
	}
}

func TestTemplatesUseWhatTheyNeed(t *testing.T) {
	d := data(t, `{"items": [{"name": "Tea", "price": 3.5, "count": 2}, {"name": "<Cup>", "price": 12, "count": 1}], "paid": false}`)
	for _, v := range []struct{ text, want string }{
		{`{{range $i, $item := .items}}{{if $i}}, {{end}}{{$item.name}}{{end}}`, "Tea, <Cup>"},
		{`{{printf "%.2f €|%5d|%-4s|%%" (index .items 0).price 42 "ab"}}`, "3.50 €|   42|ab  |%"},
		{`{{range .items}}{{break}}{{end}}{{len .items}} {{eq .paid false}} {{index .items 0 "name"}}`, "2 true Tea"},
		{`{{define "row"}}[{{.name}}]{{end}}{{range .items}}{{template "row" .}}{{end}}`, "[Tea][<Cup>]"},
		{`{{with .items}}{{(index . 1).count}}{{end}} {{print "a" 1 true}} {{"a b" | urlquery}} {{html "<"}} {{js "'"}}`, `1 a1 true a+b &lt; \'`},
		{`{{block "b" .}}x{{end}}{{- /* gone */ -}}`, "x"},
	} {
		template, err := Inline("x", v.text, "")
		if err != nil {
			t.Errorf("%s: %v", v.text, err)
			continue
		}

		got, err := template.Render(d)

		if err != nil || got.Text != v.want {
			t.Errorf("%s: %q, %v; want %q", v.text, got.Text, err, v.want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		`Hello {{.name}}`, `{{range .list}}{{.}}{{else}}{{end}}`, `{{define "a"}}x{{end}}{{template "a"}}`,
		`{{printf "%[2]*[1]d" 1 2}}`, `{{range $i := 5}}{{break}}{{end}}`, `<script>var x = {{.}}</script>`, `{{with $x := 1}}{{end}}`,
	} {
		f.Add(seed, `{"name": "Ada", "list": [1, "x", {"a": null}]}`)
	}
	f.Fuzz(func(t *testing.T, text, json string) {
		d, err := Data([]byte(json))
		if err != nil {
			return
		}
		for _, html := range []bool{false, true} {
			var template *Template
			if html {
				template, err = Inline("x", "", text)
			} else {
				template, err = Inline("x", text, "")
			}
			if err != nil {
				continue
			}
			first, err := template.Render(d)
			if err != nil {
				continue
			}
			if len(first.Text)+len(first.HTML) > maxRendered {
				t.Fatalf("made %d bytes", len(first.Text)+len(first.HTML))
			}
			if second, err := template.Render(d); err == nil && second != first {
				t.Fatalf("made %q, then %q", first, second)
			}
		}
	})
}

// budget: 20 µs for a mail with text and HTML.
func BenchmarkRender(b *testing.B) {
	template, err := Inline(welcome["welcome.subject.txt"], welcome["welcome.txt"], welcome["welcome.html"])
	if err != nil {
		b.Fatal(err)
	}
	d := data(b, `{"user": {"name": "Ada", "id": 1}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := template.Render(d); err != nil {
			b.Fatal(err)
		}
	}
}
