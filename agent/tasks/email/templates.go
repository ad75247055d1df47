package email

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of templates. Whoever may submit a task may bring a template, so none
// must be able to take the agent's time or memory: beside these bounds a template
// can't call itself, directly or through others, and what a function makes out of
// text is bounded (functions.go). Templates see their data and the functions of
// Go's text/template, nothing else.
const (
	// MaxTemplate is the longest template, in bytes.
	MaxTemplate = 256 << 10
	// maxTemplates is how many files a folder may have.
	maxTemplates = 3000
	// maxRendered is how much a template may make, in bytes.
	maxRendered = 4 << 20
)

// The endings of template files.
const (
	subjectEnding = ".subject.txt"
	textEnding    = ".txt"
	htmlEnding    = ".html"
)

// Rendered is what a template made.
type Rendered struct{ Subject, Text, HTML string }

// Templates are the templates of a folder. They don't change, and are safe for
// concurrent use. The zero value has none.
type Templates struct{ byName map[string]*Template }

// Load reads the templates of a folder: NAME.subject.txt and at least one of
// NAME.txt and NAME.html for each NAME. Folders in it and names that begin with
// a "." are left out; any other file is an error. Errors name file and line.
func Load(dir string) (*Templates, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("folder of e-mail templates %s: it can't be read: %w", dir, withoutPath(err))
	}
	if len(entries) > maxTemplates {
		return nil, fmt.Errorf("folder of e-mail templates %s: it has %d entries; at most %d are allowed", dir, len(entries), maxTemplates)
	}
	files := make(map[string]*sources)
	var errs []error
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		// Entries may be links to files, as in volumes of Kubernetes.
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			continue
		}
		if err := addFile(files, path, entry.Name()); err != nil {
			errs = append(errs, fmt.Errorf("e-mail template %s: %w", path, err))
		}
	}
	t := &Templates{byName: make(map[string]*Template)}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		template, err := compile(*files[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("e-mail template %s: %w", filepath.Join(dir, name), err))
			continue
		}
		t.byName[name] = template
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

// addFile reads a template file into what belongs to its name.
func addFile(files map[string]*sources, path, base string) error {
	// The longest ending first: ".subject.txt" ends with ".txt".
	for _, ending := range []string{subjectEnding, htmlEnding, textEnding} {
		name, ok := strings.CutSuffix(base, ending)
		if !ok || name == "" {
			continue
		}
		data, err := readFile(path, MaxTemplate)
		if err != nil {
			return err
		}
		if files[name] == nil {
			files[name] = &sources{}
		}
		source := &source{name: base, text: string(data)}
		switch ending {
		case subjectEnding:
			files[name].subject = source
		case textEnding:
			files[name].text = source
		case htmlEnding:
			files[name].html = source
		}
		return nil
	}
	return fmt.Errorf("it is no template: files are called NAME%s, NAME%s and NAME%s", subjectEnding, textEnding, htmlEnding)
}

// Names are the names of the templates, sorted.
func (t *Templates) Names() []string { return slices.Sorted(maps.Keys(t.byName)) }

// Get is the template of a name. The error lists the names that there are.
func (t *Templates) Get(name string) (*Template, error) {
	template := t.byName[name]
	if template != nil {
		return template, nil
	}
	if len(t.byName) == 0 {
		return nil, fmt.Errorf("there is no e-mail template %q: no folder of templates is configured, or it is empty", clip(name))
	}
	const most = 20
	names := t.Names()
	list := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		list += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return nil, fmt.Errorf("there is no e-mail template %q; there are %s", clip(name), list)
}

// Render makes a mail's subject and bodies by the template of a name; see
// Template.Render.
func (t *Templates) Render(name string, data any) (Rendered, error) {
	template, err := t.Get(name)
	if err != nil {
		return Rendered{}, err
	}
	return template.Render(data)
}

// withoutPath takes the path off an error of the file system.
func withoutPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
