package plainjson

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// same decodes both ways and compares values and errors.
func same(t *testing.T, data []byte, target func() any) {
	t.Helper()
	a, b := target(), target()
	got, want := Unmarshal(data, a), json.Unmarshal(data, b)
	if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
		t.Errorf("%q: %v, want %v", data, got, want)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%q:\n%+v, want\n%+v", data, a, b)
	}
	// And back.
	back, err := Marshal(a)
	wantBack, wantErr := json.Marshal(b)
	if string(back) != string(wantBack) || (err == nil) != (wantErr == nil) {
		t.Errorf("encoded %s %v, want %s %v", back, err, wantBack, wantErr)
	}
}

type inner struct{ X, Y int8 }

type odd struct {
	inner
	Name    string
	Flag    *bool
	When    time.Time
	Raw     []byte
	Float   float64
	Any     any
	M       map[string]*inner
	L       [][]string
	Ignored string `json:"-"`
	Number  int    `json:",string"`
	U       uint16 `json:"u"`
}

type plain struct {
	inner
	Name string            `json:"name"`
	P    *inner            `json:"p,omitempty"`
	M    map[string]*inner `json:"m"`
	L    [][]string        `json:"l"`
	S    map[string]string
	U    uint16
	skip int //nolint:unused // as unexported fields are
	Next *plain
}

func documents() []string {
	return []string{
		"", " ", "null", "{}", "[]", "1", `"x"`, "{", "}", `{"name"}`, `{"name":}`, `{"name":"a"`, `{"name":"a"} x`, `{"name":"a",}`,
		`{"NAME":"a"}`, `{"name":"a","Name":"b"}`, `{"name":"\u00e9\n\"","x":1}`, "{\"name\":\"\xff\"}", "{\"name\":\"a\nb\"}", `{"name":"é"}`,
		`{"name":null,"p":null,"m":null,"l":null}`, `{"p":{"X":1},"p":{"Y":2}}`, `{"p":{"X":128}}`, `{"p":{"X":-128,"Y":1.0}}`, `{"p":{"X":01}}`,
		`{"p":{"X":1e1}}`, `{"X":3,"Y":-4}`, `{"m":{"a":{"X":1},"b":null},"l":[["a","b"],[],null]}`, `{"l":[["a"]],"l":[["b"],["c"]]}`,
		`{"S":{"a":"b","a":"c"},"S":{"d":"e"}}`, `{"U":65536}`, `{"U":-1}`, `{"U":"1"}`, `{"unknown":{"a":[1,2,{"b":null}],"c":true,"d":false,"e":-0.5e+3}}`,
		`{"unknown":tru}`, `{"unknown":[1,]}`, `{"Next":{"Next":{"name":"x"}}}`, `{"ſ":{"a":"b"}}`, `{"When":"2020-01-01T00:00:00Z","Raw":"aGk=","Float":1,"Any":[1],"Flag":true,"Number":"3"}`,
		`{"name" : "a" , "U" : 7 }`, `{"name":7}`, `{"L":[[1]]}`, `[{"name":"a"}]`, `{"skip":1}`, `{"inner":{"X":1}}`, `{"U":0,"U":0}`,
	}
}

func TestAsEncodingJSON(t *testing.T) {
	for _, d := range documents() {
		same(t, []byte(d), func() any { return new(plain) })
		same(t, []byte(d), func() any { return new(odd) })
		same(t, []byte(d), func() any { return new(specs.Spec) })
		same(t, []byte(d), func() any { return new(map[string]any) })
		same(t, []byte(d), func() any { return new([]string) })
	}
	same(t, []byte("{}"), func() any { return plain{} })
}

// specDocument is a specification with much in it.
func specDocument(t testing.TB) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", "spec.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSpec(t *testing.T) {
	doc := specDocument(t)
	same(t, doc, func() any { return new(specs.Spec) })
	// All of it is plain.
	d := decoder{data: doc, types: make(map[reflect.Type][]field)}
	s := new(specs.Spec)
	if err := d.value(reflect.ValueOf(s).Elem(), 0); err != nil {
		t.Fatalf("%v at %q", err, doc[d.at:])
	}
	if _, ok := d.append(nil, reflect.ValueOf(s), 0); !ok {
		t.Error("it is not encoded here")
	}
	if s.Linux == nil || s.Linux.Resources.BlockIO.ThrottleReadBpsDevice[0].Major != 8 || s.Linux.Seccomp.Syscalls[0].Names[0] != "accept" {
		t.Errorf("%+v", s)
	}
}

func FuzzAsEncodingJSON(f *testing.F) {
	for _, d := range documents() {
		f.Add([]byte(d))
	}
	f.Add(specDocument(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		same(t, data, func() any { return new(plain) })
		same(t, data, func() any { return new(specs.Spec) })
	})
}

func BenchmarkOnce(b *testing.B) {
	doc := specDocument(b)
	for b.Loop() {
		if err := Unmarshal(doc, new(specs.Spec)); err != nil {
			b.Fatal(err)
		}
	}
}
