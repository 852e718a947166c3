"""The machine-readable mark of what a model wrote: text and pictures say that they are synthetic.

By the vocabulary of the IPTC, which C2PA, Google and Adobe read
(cv.iptc.org/newscodes/digitalsourcetype).
"""

from PIL.PngImagePlugin import PngInfo

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TEXT_KEY = "digital_source_type"
TEXT_TYPE = f"{_VOCABULARY}trainedAlgorithmicMedia"
"""Made by a model that was trained on content of others."""
PICTURE_TYPE = f"{_VOCABULARY}compositeWithTrainedAlgorithmicMedia"
"""Put together from parts, one of which a trained model made: here the text."""
NOTE = "Machine-made text, not the person. Made with huggingtweets."

_XMP = f"""\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
   xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
   xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   Iptc4xmpExt:DigitalSourceType="{PICTURE_TYPE}"
   xmp:CreatorTool="huggingtweets"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def picture_mark() -> PngInfo:
    """Return what a PNG file says about itself, as XMP and in plain words."""
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", _XMP)
    info.add_text("DigitalSourceType", PICTURE_TYPE)
    info.add_text("Comment", NOTE)
    return info


def marked(row: dict[str, str]) -> dict[str, str]:
    """Return a row about one sample with the mark added."""
    return {**row, TEXT_KEY: TEXT_TYPE}
