"""Of each SOP class of the standard, the element that carries its content and stands late in the data set.

Written by scripts/sop-classes from the tables of PS3.3 (IODs and their modules) as highdicom 0.28.2 carries them,
and the names of pydicom 3.0.2; not to be changed by hand. The element is Pixel Data in whatever kind where an image
pixel module belongs to the IOD; elsewhere the last Type 1 sequence or bulk value at the top level of a mandatory module
of its own. A class that is not here has none: private classes, Raw Data, and those of which everything behind the
general modules is optional.
"""

from __future__ import annotations

from collections.abc import Mapping

#: What carries content, and its tags: one of them is enough.
ELEMENTS: Mapping[str, tuple[int, ...]] = {
    "Stereo Pairs Sequence": (0x00220020,),
    "Visual Field Test Point Sequence": (0x00240089,),
    "Referenced Image Real World Value Mapping Sequence": (0x00409094,),
    "Content Sequence": (0x0040A730,),
    "Encapsulated Document": (0x00420011,),
    "Approval Subject Sequence": (0x00440109,),
    "Deformable Registration Sequence": (0x00640002,),
    "Surface Sequence": (0x00660002,),
    "Surface Points Sequence": (0x00660011,),
    "Track Set Sequence": (0x00660101,),
    "Annotation Group Sequence": (0x006A0002,),
    "Displayed Area Selection Sequence": (0x0070005A,),
    "Registration Sequence": (0x00700308,),
    "Fiducial Set Sequence": (0x0070031C,),
    "Blending Sequence": (0x00700402,),
    "Volumetric Presentation Input Set Sequence": (0x0070120A,),
    "Volume Stream Sequence": (0x00701A08,),
    "Blending Display Sequence": (0x00701B04,),
    "Display Sets Sequence": (0x00720200,),
    "Structured Display Image Box Sequence": (0x00720422,),
    "Component Types Sequence": (0x00760032,),
    "Implant Template Group Variation Dimension Sequence": (0x007800B0,),
    "Assessed SOP Instance Sequence": (0x00820004,),
    "Acquisition Task Sequence": (0x30020118,),
    "RT ROI Observations Sequence": (0x30060080,),
    "Treatment Machine Sequence": (0x300A0206,),
    "RT Radiation Sequence": (0x300A0616,),
    "Radiation Dosimeter Unit Sequence": (0x300A0658,),
    "Referenced RT Radiation Record Sequence": (0x300A0703,),
    "RT Radiation Salvage Record Control Point Sequence": (0x300A0722,),
    "RT Treatment Preparation Patient Position Sequence": (0x300A078A,),
    "RT Radiation Task Sequence": (0x300A0797,),
    "Referenced RT Plan Sequence": (0x300C0002,),
    "Referenced Structure Set Sequence": (0x300C0060,),
    "RT Segment Annotation Sequence": (0x3010002A,),
    "RT Physician Intent Sequence": (0x30100057,),
    "Robotic Path Control Point Sequence": (0x30100097,),
    "Tomotherapeutic Control Point Sequence": (0x30100098,),
    "Waveform Sequence": (0x54000100,),
    "Spectroscopy Data": (0x56000020,),
    "Pixel Data": (0x00287FE0, 0x7FE00008, 0x7FE00009, 0x7FE00010),
}

CONTENT: Mapping[str, str] = {
    # Computed Radiography Image Storage
    "1.2.840.10008.5.1.4.1.1.1": "Pixel Data",
    # Digital X-Ray Image Storage - For Presentation
    "1.2.840.10008.5.1.4.1.1.1.1": "Pixel Data",
    # Digital X-Ray Image Storage - For Processing
    "1.2.840.10008.5.1.4.1.1.1.1.1": "Pixel Data",
    # Digital Mammography X-Ray Image Storage - For Presentation
    "1.2.840.10008.5.1.4.1.1.1.2": "Pixel Data",
    # Digital Mammography X-Ray Image Storage - For Processing
    "1.2.840.10008.5.1.4.1.1.1.2.1": "Pixel Data",
    # Digital Intra-Oral X-Ray Image Storage - For Presentation
    "1.2.840.10008.5.1.4.1.1.1.3": "Pixel Data",
    # Digital Intra-Oral X-Ray Image Storage - For Processing
    "1.2.840.10008.5.1.4.1.1.1.3.1": "Pixel Data",
    # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2": "Pixel Data",
    # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1": "Pixel Data",
    # Legacy Converted Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2": "Pixel Data",
    # Ultrasound Multi-frame Image Storage
    "1.2.840.10008.5.1.4.1.1.3": "Pixel Data",
    # Ultrasound Multi-frame Image Storage
    "1.2.840.10008.5.1.4.1.1.3.1": "Pixel Data",
    # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4": "Pixel Data",
    # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1": "Pixel Data",
    # MR Spectroscopy Storage
    "1.2.840.10008.5.1.4.1.1.4.2": "Spectroscopy Data",
    # Enhanced MR Color Image Storage
    "1.2.840.10008.5.1.4.1.1.4.3": "Pixel Data",
    # Legacy Converted Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4": "Pixel Data",
    # Nuclear Medicine Image Storage
    "1.2.840.10008.5.1.4.1.1.5": "Pixel Data",
    # Ultrasound Image Storage
    "1.2.840.10008.5.1.4.1.1.6": "Pixel Data",
    # Ultrasound Image Storage
    "1.2.840.10008.5.1.4.1.1.6.1": "Pixel Data",
    # Enhanced US Volume Storage
    "1.2.840.10008.5.1.4.1.1.6.2": "Pixel Data",
    # Photoacoustic Image Storage
    "1.2.840.10008.5.1.4.1.1.6.3": "Pixel Data",
    # Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7": "Pixel Data",
    # Multi-frame Single Bit Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.1": "Pixel Data",
    # Multi-frame Grayscale Byte Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.2": "Pixel Data",
    # Multi-frame Grayscale Word Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.3": "Pixel Data",
    # Multi-frame True Color Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.4": "Pixel Data",
    # 12-lead ECG Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.1.1": "Waveform Sequence",
    # General ECG Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.1.2": "Waveform Sequence",
    # Ambulatory ECG Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.1.3": "Waveform Sequence",
    # General 32-bit ECG Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.1.4": "Waveform Sequence",
    # Hemodynamic Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.2.1": "Waveform Sequence",
    # Cardiac Electrophysiology Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.3.1": "Waveform Sequence",
    # Basic Voice Audio Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.4.1": "Waveform Sequence",
    # General Audio Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.4.2": "Waveform Sequence",
    # Arterial Pulse Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.5.1": "Waveform Sequence",
    # Respiratory Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.6.1": "Waveform Sequence",
    # Multi-channel Respiratory Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.6.2": "Waveform Sequence",
    # Routine Scalp Electroencephalogram Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.7.1": "Waveform Sequence",
    # Electromyogram Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.7.2": "Waveform Sequence",
    # Electrooculogram Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.7.3": "Waveform Sequence",
    # Sleep Electroencephalogram Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.7.4": "Waveform Sequence",
    # Body Position Waveform Storage
    "1.2.840.10008.5.1.4.1.1.9.8.1": "Waveform Sequence",
    # Grayscale Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.1": "Displayed Area Selection Sequence",
    # Color Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.2": "Displayed Area Selection Sequence",
    # Pseudo-Color Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.3": "Displayed Area Selection Sequence",
    # Blending Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.4": "Blending Sequence",
    # XA/XRF Grayscale Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.5": "Displayed Area Selection Sequence",
    # Grayscale Planar MPR Volumetric Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.6": "Volumetric Presentation Input Set Sequence",
    # Compositing Planar MPR Volumetric Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.7": "Volumetric Presentation Input Set Sequence",
    # Advanced Blending Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.8": "Blending Display Sequence",
    # Volume Rendering Volumetric Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.9": "Volume Stream Sequence",
    # Segmented Volume Rendering Volumetric Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.10": "Volume Stream Sequence",
    # Multiple Volume Rendering Volumetric Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.11": "Volume Stream Sequence",
    # Variable Modality LUT Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.12": "Displayed Area Selection Sequence",
    # X-Ray Angiographic Image Storage
    "1.2.840.10008.5.1.4.1.1.12.1": "Pixel Data",
    # Enhanced XA Image Storage
    "1.2.840.10008.5.1.4.1.1.12.1.1": "Pixel Data",
    # X-Ray Radiofluoroscopic Image Storage
    "1.2.840.10008.5.1.4.1.1.12.2": "Pixel Data",
    # Enhanced XRF Image Storage
    "1.2.840.10008.5.1.4.1.1.12.2.1": "Pixel Data",
    # X-Ray Angiographic Bi-Plane Image Storage
    "1.2.840.10008.5.1.4.1.1.12.3": "Pixel Data",
    # X-Ray 3D Angiographic Image Storage
    "1.2.840.10008.5.1.4.1.1.13.1.1": "Pixel Data",
    # X-Ray 3D Craniofacial Image Storage
    "1.2.840.10008.5.1.4.1.1.13.1.2": "Pixel Data",
    # Breast Tomosynthesis Image Storage
    "1.2.840.10008.5.1.4.1.1.13.1.3": "Pixel Data",
    # Breast Projection X-Ray Image Storage - For Presentation
    "1.2.840.10008.5.1.4.1.1.13.1.4": "Pixel Data",
    # Breast Projection X-Ray Image Storage - For Processing
    "1.2.840.10008.5.1.4.1.1.13.1.5": "Pixel Data",
    # Intravascular Optical Coherence Tomography Image Storage - For Presentation
    "1.2.840.10008.5.1.4.1.1.14.1": "Pixel Data",
    # Intravascular Optical Coherence Tomography Image Storage - For Processing
    "1.2.840.10008.5.1.4.1.1.14.2": "Pixel Data",
    # Nuclear Medicine Image Storage
    "1.2.840.10008.5.1.4.1.1.20": "Pixel Data",
    # Parametric Map Storage
    "1.2.840.10008.5.1.4.1.1.30": "Pixel Data",
    # Spatial Registration Storage
    "1.2.840.10008.5.1.4.1.1.66.1": "Registration Sequence",
    # Spatial Fiducials Storage
    "1.2.840.10008.5.1.4.1.1.66.2": "Fiducial Set Sequence",
    # Deformable Spatial Registration Storage
    "1.2.840.10008.5.1.4.1.1.66.3": "Deformable Registration Sequence",
    # Segmentation Storage
    "1.2.840.10008.5.1.4.1.1.66.4": "Pixel Data",
    # Surface Segmentation Storage
    "1.2.840.10008.5.1.4.1.1.66.5": "Surface Sequence",
    # Tractography Results Storage
    "1.2.840.10008.5.1.4.1.1.66.6": "Track Set Sequence",
    # not in pydicom's dictionary
    "1.2.840.10008.5.1.4.1.1.66.7": "Pixel Data",
    # not in pydicom's dictionary
    "1.2.840.10008.5.1.4.1.1.66.8": "Pixel Data",
    # Real World Value Mapping Storage
    "1.2.840.10008.5.1.4.1.1.67": "Referenced Image Real World Value Mapping Sequence",
    # Surface Scan Mesh Storage
    "1.2.840.10008.5.1.4.1.1.68.1": "Surface Sequence",
    # Surface Scan Point Cloud Storage
    "1.2.840.10008.5.1.4.1.1.68.2": "Surface Points Sequence",
    # VL Image Storage - Trial
    "1.2.840.10008.5.1.4.1.1.77.1": "Pixel Data",
    # VL Endoscopic Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.1": "Pixel Data",
    # Video Endoscopic Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.1.1": "Pixel Data",
    # VL Microscopic Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.2": "Pixel Data",
    # Video Microscopic Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.2.1": "Pixel Data",
    # VL Slide-Coordinates Microscopic Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.3": "Pixel Data",
    # VL Photographic Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.4": "Pixel Data",
    # Video Photographic Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.4.1": "Pixel Data",
    # Ophthalmic Photography 8 Bit Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.5.1": "Pixel Data",
    # Ophthalmic Photography 16 Bit Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.5.2": "Pixel Data",
    # Stereometric Relationship Storage
    "1.2.840.10008.5.1.4.1.1.77.1.5.3": "Stereo Pairs Sequence",
    # Ophthalmic Tomography Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.5.4": "Pixel Data",
    # Wide Field Ophthalmic Photography Stereographic Projection Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.5.5": "Pixel Data",
    # Wide Field Ophthalmic Photography 3D Coordinates Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.5.6": "Pixel Data",
    # Ophthalmic Optical Coherence Tomography En Face Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.5.7": "Pixel Data",
    # Ophthalmic Optical Coherence Tomography B-scan Volume Analysis Storage
    "1.2.840.10008.5.1.4.1.1.77.1.5.8": "Pixel Data",
    # VL Whole Slide Microscopy Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.6": "Pixel Data",
    # Dermoscopic Photography Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Pixel Data",
    # Confocal Microscopy Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.8": "Pixel Data",
    # Confocal Microscopy Tiled Pyramidal Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.9": "Pixel Data",
    # VL Multi-frame Image Storage - Trial
    "1.2.840.10008.5.1.4.1.1.77.2": "Pixel Data",
    # Spectacle Prescription Report Storage
    "1.2.840.10008.5.1.4.1.1.78.6": "Content Sequence",
    # Macular Grid Thickness and Volume Report Storage
    "1.2.840.10008.5.1.4.1.1.79.1": "Content Sequence",
    # Ophthalmic Visual Field Static Perimetry Measurements Storage
    "1.2.840.10008.5.1.4.1.1.80.1": "Visual Field Test Point Sequence",
    # Ophthalmic Thickness Map Storage
    "1.2.840.10008.5.1.4.1.1.81.1": "Pixel Data",
    # Corneal Topography Map Storage
    "1.2.840.10008.5.1.4.1.1.82.1": "Pixel Data",
    # Text SR Storage - Trial
    "1.2.840.10008.5.1.4.1.1.88.1": "Content Sequence",
    # Audio SR Storage - Trial
    "1.2.840.10008.5.1.4.1.1.88.2": "Content Sequence",
    # Detail SR Storage - Trial
    "1.2.840.10008.5.1.4.1.1.88.3": "Content Sequence",
    # Comprehensive SR Storage - Trial
    "1.2.840.10008.5.1.4.1.1.88.4": "Content Sequence",
    # Basic Text SR Storage
    "1.2.840.10008.5.1.4.1.1.88.11": "Content Sequence",
    # Enhanced SR Storage
    "1.2.840.10008.5.1.4.1.1.88.22": "Content Sequence",
    # Comprehensive SR Storage
    "1.2.840.10008.5.1.4.1.1.88.33": "Content Sequence",
    # Comprehensive 3D SR Storage
    "1.2.840.10008.5.1.4.1.1.88.34": "Content Sequence",
    # Extensible SR Storage
    "1.2.840.10008.5.1.4.1.1.88.35": "Content Sequence",
    # Procedure Log Storage
    "1.2.840.10008.5.1.4.1.1.88.40": "Content Sequence",
    # Mammography CAD SR Storage
    "1.2.840.10008.5.1.4.1.1.88.50": "Content Sequence",
    # Key Object Selection Document Storage
    "1.2.840.10008.5.1.4.1.1.88.59": "Content Sequence",
    # Chest CAD SR Storage
    "1.2.840.10008.5.1.4.1.1.88.65": "Content Sequence",
    # X-Ray Radiation Dose SR Storage
    "1.2.840.10008.5.1.4.1.1.88.67": "Content Sequence",
    # Radiopharmaceutical Radiation Dose SR Storage
    "1.2.840.10008.5.1.4.1.1.88.68": "Content Sequence",
    # Colon CAD SR Storage
    "1.2.840.10008.5.1.4.1.1.88.69": "Content Sequence",
    # Implantation Plan SR Storage
    "1.2.840.10008.5.1.4.1.1.88.70": "Content Sequence",
    # Acquisition Context SR Storage
    "1.2.840.10008.5.1.4.1.1.88.71": "Content Sequence",
    # Simplified Adult Echo SR Storage
    "1.2.840.10008.5.1.4.1.1.88.72": "Content Sequence",
    # Patient Radiation Dose SR Storage
    "1.2.840.10008.5.1.4.1.1.88.73": "Content Sequence",
    # Planned Imaging Agent Administration SR Storage
    "1.2.840.10008.5.1.4.1.1.88.74": "Content Sequence",
    # Performed Imaging Agent Administration SR Storage
    "1.2.840.10008.5.1.4.1.1.88.75": "Content Sequence",
    # Enhanced X-Ray Radiation Dose SR Storage
    "1.2.840.10008.5.1.4.1.1.88.76": "Content Sequence",
    # Waveform Annotation SR Storage
    "1.2.840.10008.5.1.4.1.1.88.77": "Content Sequence",
    # Content Assessment Results Storage
    "1.2.840.10008.5.1.4.1.1.90.1": "Assessed SOP Instance Sequence",
    # Microscopy Bulk Simple Annotations Storage
    "1.2.840.10008.5.1.4.1.1.91.1": "Annotation Group Sequence",
    # Encapsulated PDF Storage
    "1.2.840.10008.5.1.4.1.1.104.1": "Encapsulated Document",
    # Encapsulated CDA Storage
    "1.2.840.10008.5.1.4.1.1.104.2": "Encapsulated Document",
    # Encapsulated STL Storage
    "1.2.840.10008.5.1.4.1.1.104.3": "Encapsulated Document",
    # Encapsulated OBJ Storage
    "1.2.840.10008.5.1.4.1.1.104.4": "Encapsulated Document",
    # Encapsulated MTL Storage
    "1.2.840.10008.5.1.4.1.1.104.5": "Encapsulated Document",
    # Positron Emission Tomography Image Storage
    "1.2.840.10008.5.1.4.1.1.128": "Pixel Data",
    # Legacy Converted Enhanced PET Image Storage
    "1.2.840.10008.5.1.4.1.1.128.1": "Pixel Data",
    # Enhanced PET Image Storage
    "1.2.840.10008.5.1.4.1.1.130": "Pixel Data",
    # Basic Structured Display Storage
    "1.2.840.10008.5.1.4.1.1.131": "Structured Display Image Box Sequence",
    # Protocol Approval Storage
    "1.2.840.10008.5.1.4.1.1.200.3": "Approval Subject Sequence",
    # RT Image Storage
    "1.2.840.10008.5.1.4.1.1.481.1": "Pixel Data",
    # RT Dose Storage
    "1.2.840.10008.5.1.4.1.1.481.2": "Pixel Data",
    # RT Structure Set Storage
    "1.2.840.10008.5.1.4.1.1.481.3": "RT ROI Observations Sequence",
    # RT Beams Treatment Record Storage
    "1.2.840.10008.5.1.4.1.1.481.4": "Treatment Machine Sequence",
    # RT Plan Storage
    "1.2.840.10008.5.1.4.1.1.481.5": "Referenced Structure Set Sequence",
    # RT Brachy Treatment Record Storage
    "1.2.840.10008.5.1.4.1.1.481.6": "Treatment Machine Sequence",
    # RT Ion Plan Storage
    "1.2.840.10008.5.1.4.1.1.481.8": "Referenced Structure Set Sequence",
    # RT Ion Beams Treatment Record Storage
    "1.2.840.10008.5.1.4.1.1.481.9": "Treatment Machine Sequence",
    # RT Physician Intent Storage
    "1.2.840.10008.5.1.4.1.1.481.10": "RT Physician Intent Sequence",
    # RT Segment Annotation Storage
    "1.2.840.10008.5.1.4.1.1.481.11": "RT Segment Annotation Sequence",
    # RT Radiation Set Storage
    "1.2.840.10008.5.1.4.1.1.481.12": "RT Radiation Sequence",
    # C-Arm Photon-Electron Radiation Storage
    "1.2.840.10008.5.1.4.1.1.481.13": "Radiation Dosimeter Unit Sequence",
    # Tomotherapeutic Radiation Storage
    "1.2.840.10008.5.1.4.1.1.481.14": "Tomotherapeutic Control Point Sequence",
    # Robotic-Arm Radiation Storage
    "1.2.840.10008.5.1.4.1.1.481.15": "Robotic Path Control Point Sequence",
    # RT Radiation Record Set Storage
    "1.2.840.10008.5.1.4.1.1.481.16": "Referenced RT Radiation Record Sequence",
    # RT Radiation Salvage Record Storage
    "1.2.840.10008.5.1.4.1.1.481.17": "RT Radiation Salvage Record Control Point Sequence",
    # Tomotherapeutic Radiation Record Storage
    "1.2.840.10008.5.1.4.1.1.481.18": "Tomotherapeutic Control Point Sequence",
    # C-Arm Photon-Electron Radiation Record Storage
    "1.2.840.10008.5.1.4.1.1.481.19": "Radiation Dosimeter Unit Sequence",
    # Robotic Radiation Record Storage
    "1.2.840.10008.5.1.4.1.1.481.20": "Robotic Path Control Point Sequence",
    # RT Radiation Set Delivery Instruction Storage
    "1.2.840.10008.5.1.4.1.1.481.21": "RT Radiation Task Sequence",
    # RT Treatment Preparation Storage
    "1.2.840.10008.5.1.4.1.1.481.22": "RT Treatment Preparation Patient Position Sequence",
    # Enhanced RT Image Storage
    "1.2.840.10008.5.1.4.1.1.481.23": "Pixel Data",
    # Enhanced Continuous RT Image Storage
    "1.2.840.10008.5.1.4.1.1.481.24": "Pixel Data",
    # RT Patient Position Acquisition Instruction Storage
    "1.2.840.10008.5.1.4.1.1.481.25": "Acquisition Task Sequence",
    # RT Beams Delivery Instruction Storage
    "1.2.840.10008.5.1.4.34.7": "Referenced RT Plan Sequence",
    # RT Brachy Application Setup Delivery Instruction Storage
    "1.2.840.10008.5.1.4.34.10": "Referenced RT Plan Sequence",
    # Hanging Protocol Storage
    "1.2.840.10008.5.1.4.38.1": "Display Sets Sequence",
    # Implant Assembly Template Storage
    "1.2.840.10008.5.1.4.44.1": "Component Types Sequence",
    # Implant Template Group Storage
    "1.2.840.10008.5.1.4.45.1": "Implant Template Group Variation Dimension Sequence",
}
